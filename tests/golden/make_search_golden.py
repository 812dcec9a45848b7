"""Writes what the reference predicts to `search.npz`, which the tests read without torch.

    pip install -e ".[test,reference]"
    PYTHONPATH=.:tests python tests/golden/make_search_golden.py

1,000 random archs and resolutions of MobileNetV3 w1.2, with the latency and the accuracy that its
`LatencyEstimator` and `AccuracyPredictor` give from the published tables and weights; and 1,000 of
ResNet50 with its predictor. The tables and weights themselves are not in this repository.
"""

import json
import random
from pathlib import Path

import numpy as np

from benchmarks.once_for_all import (
    accuracy_predictor,
    latency_tables,
    state_dict,
    stub_imports,
)

DATA = Path(__file__).parents[3] / "shared/data/once_for_all"
PATH = Path(__file__).with_name("search.npz")
RESOLUTIONS = (160, 176, 192, 208, 224)
RESNET_SIZES = [128, 144, 160, 176, 192, 224, 240, 256]


def mobilenet_values(count):
    from ofa.tutorial.evolution_finder import ArchManager

    manager, tables, predictor = (
        ArchManager(),
        latency_tables(DATA, RESOLUTIONS),
        accuracy_predictor(DATA),
    )
    samples = [manager.random_sample() for _ in range(count)]
    return {
        "mobilenet/archs": np.asarray(json.dumps(samples)),
        "mobilenet/latency": np.asarray(
            [tables[s["r"][0]].predict_network_latency_given_spec(s) for s in samples]
        ),
        "mobilenet/accuracy": predictor.predict_accuracy(samples).numpy()[:, 0],
    }


def resnet_values(count):
    from ofa.nas.accuracy_predictor import AccuracyPredictor, ResNetArchEncoder

    encoder = ResNetArchEncoder(image_size_list=RESNET_SIZES)
    predictor = AccuracyPredictor(encoder, device="cpu")
    predictor.load_state_dict(state_dict(DATA / "acc_predictor_resnet50.npz"))
    samples = [encoder.random_sample_arch() for _ in range(count)]
    return {
        "resnet/archs": np.asarray(json.dumps(samples)),
        "resnet/accuracy": predictor.predict_acc(samples).detach().numpy(),
    }


if __name__ == "__main__":
    random.seed(0)
    stub_imports()
    np.savez_compressed(PATH, **mobilenet_values(1000), **resnet_values(1000))
    print(PATH, PATH.stat().st_size)
