"""Writes what the reference computes to `once_for_all.npz`, which the tests read without torch.

    pip install -e ".[test,reference]"
    PYTHONPATH=.:tests python tests/golden/make_golden.py

Weights are those of `random_variables`, carried over by `to_once_for_all`; so one file of a few
hundred KB holds logits, losses, gradient norms and logits after the reference's own calibration.
"""

import json
from pathlib import Path

import jax
import numpy as np
from random_nets import GOLDEN_SPACES, golden_archs, golden_batch, random_variables

import ofa_jax
from benchmarks.once_for_all import reference, stub_imports

PATH = Path(__file__).with_name("once_for_all.npz")


def golden(space):
    """{name: array} of everything the tests compare, for one space."""
    import torch

    stub_imports()
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    _, variables = random_variables(space)
    state_dict = ofa_jax.interop.to_once_for_all(variables, space)
    images, labels = golden_batch()
    images, labels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    archs = golden_archs(space)
    found = {"archs": np.asarray(json.dumps([space.arch_to_dict(arch) for arch in archs]))}
    for index, arch in enumerate(archs):
        net = reference(space, state_dict)
        net.set_active_subnet(**space.arch_to_dict(arch))
        with torch.no_grad():
            found[f"eval/{index}"] = net.eval()(images).numpy()
        specialised = net.get_active_subnet()
        shapes = {name: list(t.shape) for name, t in specialised.state_dict().items()}
        found[f"net_config/{index}"] = np.asarray(json.dumps(specialised.config))
        found[f"specialised/{index}"] = np.asarray(json.dumps(shapes))
        logits = net.train()(images)
        loss = torch.nn.functional.cross_entropy(logits, labels.long())
        loss.backward()
        found[f"train/{index}"] = logits.detach().numpy()
        found[f"loss/{index}"] = np.float32(loss.item())
        norms = [0.0 if p.grad is None else p.grad.norm().item() for p in net.parameters()]
        found[f"norms/{index}"] = np.asarray(norms, np.float32)
        found["names"] = np.asarray([name for name, _ in net.named_parameters()])
        net = reference(space, state_dict)
        net.set_active_subnet(**space.arch_to_dict(arch))
        set_running_statistics(net, [(images[:5], None), (images[5:], None)])
        with torch.no_grad():
            found[f"calibrated/{index}"] = net.eval()(images).numpy()
        stats = {name: t for name, t in net.state_dict().items() if "running" in name}
        norms = [np.linalg.norm(t.numpy()) for t in stats.values()]
        found[f"statistics/{index}"] = np.asarray(norms, np.float32)
        found["statistics"] = np.asarray(list(stats))
    return found


def make(names=GOLDEN_SPACES):
    """Everything, for these spaces of the reference."""
    spaces = [ofa_jax.get_space(name, num_classes=10, dropout=0.0) for name in names]
    return {f"{s.name}/{key}": value for s in spaces for key, value in golden(s).items()}


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    np.savez_compressed(PATH, **make())
    print(f"{PATH}: {PATH.stat().st_size / 1e3:.0f} KB")
