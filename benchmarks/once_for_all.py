"""The reference, PyTorch's `ofa` from the registry: to compare with, in tests and in benchmarks.

`pip install -e ".[reference]"` installs it. "as shipped" is float32 NCHW; "tuned" is channels-last,
and on a GPU bfloat16 by autocast, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reference import reference, stub_imports
from ofa_jax.space import SearchSpace

LAYOUTS = {"as shipped": torch.contiguous_format, "tuned": torch.channels_last}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Waits until the device has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class Reference:
    """The reference's supernet and its loops, in one of the `LAYOUTS`, without reading images."""

    def __init__(self, space: SearchSpace, layout: str):
        self.format = LAYOUTS[layout]
        self.net, self.teacher = (
            reference(space).to(DEVICE, memory_format=self.format) for _ in range(2)
        )
        self.teacher.set_max_net()
        self.classes = space.num_classes
        self.mixed = layout == "tuned" and DEVICE.type == "cuda"
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=3e-5
        )

    def images(self, batch_size: int, resolution: int) -> torch.Tensor:
        """Random images on the network's device."""
        images = torch.randn(batch_size, 3, resolution, resolution)
        return images.to(DEVICE, memory_format=self.format)

    def autocast(self) -> torch.autocast:
        """What the net runs in."""
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.mixed)

    def step(self, images: torch.Tensor, labels: torch.Tensor, subnets: int) -> None:
        """`progressive_shrinking.train_one_epoch` for one batch."""
        from ofa.utils import (
            cross_entropy_loss_with_soft_target,
            cross_entropy_with_label_smoothing,
        )

        self.net.train()
        self.teacher.train()
        self.net.zero_grad()
        with torch.no_grad(), self.autocast():
            soft = torch.softmax(self.teacher(images).float(), 1)
        for _ in range(subnets):
            self.net.sample_active_subnet()
            with self.autocast():
                logits = self.net(images).float()
            loss = cross_entropy_loss_with_soft_target(logits, soft)
            (loss + cross_entropy_with_label_smoothing(logits, labels)).backward()
        self.optimizer.step()
        wait()

    def subnet(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Forward and backward of the active subnet."""
        self.net.train()
        self.net.zero_grad()
        with self.autocast():
            loss = torch.nn.functional.cross_entropy(self.net(images).float(), labels)
        loss.backward()
        wait()

    def evaluate(self, calibration: list[torch.Tensor], test: list[torch.Tensor]) -> None:
        """Calibrates a random subnet and runs it over the test images."""
        from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

        self.net.sample_active_subnet()
        with self.autocast():
            set_running_statistics(self.net, [(images, None) for images in calibration])
            self.net.eval()
            with torch.no_grad():
                correct = sum(int((self.net(i).argmax(1) == 0).sum()) for i in test)
        assert correct >= 0
        wait()


# -- its search ------------------------------------------------------------------------------------


def latency_tables(data: Path, resolutions: Sequence[int]) -> dict[int, Any]:
    """Its `LatencyEstimator` of each resolution, the table read by a safe loader."""
    stub_imports()
    import yaml
    from ofa.tutorial.latency_table import LatencyEstimator

    tables = {}
    for resolution in resolutions:
        tables[resolution] = LatencyEstimator.__new__(LatencyEstimator)
        text = (data / f"note10/{resolution}_lookup_table.yaml").read_text(encoding="utf-8")
        tables[resolution].lut = yaml.load(text, Loader=yaml.CSafeLoader)
    return tables


def accuracy_predictor(data: Path) -> Any:
    """Its `AccuracyPredictor` with the published weights of MobileNetV3."""
    stub_imports()
    from ofa.tutorial.accuracy_predictor import AccuracyPredictor

    predictor = AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(state_dict(data / "acc_predictor_mbv3.npz"))
    return predictor


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an .npz by their names."""
    with np.load(path) as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def evolution_finder(
    data: Path, resolutions: Sequence[int], limit: float, population: int, generations: int
) -> Any:
    """Its `EvolutionFinder` under one latency constraint in milliseconds."""
    stub_imports()
    from ofa.tutorial.evolution_finder import EvolutionFinder

    class Latency:
        tables = latency_tables(data, resolutions)

        def predict_efficiency(self, spec: dict[str, Any]) -> float:
            return self.tables[spec["r"][0]].predict_network_latency_given_spec(spec)

    # It asks at the terminal for constraints that are no whole number in its own range.
    EvolutionFinder.valid_constraint_range = {"note10": [0, 1000]}
    return EvolutionFinder("note10", limit, Latency(), accuracy_predictor(data),
                           population_size=population, max_time_budget=generations)  # fmt: skip
