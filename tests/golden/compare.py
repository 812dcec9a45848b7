"""Compares masked, extracted and reference logits on 102 archs of each published space.

    pip install -e ".[test,reference]"
    PYTHONPATH=.:tests python tests/golden/compare.py --archs=100

Prints, for each space and resolution, the largest difference over the largest logit. About an hour
on two CPU cores; the tests do the same on fewer archs and smaller images.
"""

import argparse
import time

import jax
import numpy as np
from random_nets import GOLDEN_SPACES, largest_difference, random_variables

import ofa_jax
from benchmarks.once_for_all import reference
from ofa_jax import conv

PAIRS = (("masked", "extracted"), ("masked", "reference"), ("extracted", "reference"))


def compare(name: str, resolution: int, archs: int, batch: int = 2) -> dict[tuple[str, str], float]:
    """The worst difference of each pair over the largest, the smallest and random archs."""
    import torch

    space = ofa_jax.get_space(name, num_classes=10, dropout=0.0)
    net, variables = random_variables(space)
    torch_net = reference(space, ofa_jax.interop.to_once_for_all(variables, space)).eval()
    rng = np.random.default_rng(resolution)
    images = rng.standard_normal((batch, resolution, resolution, 3), np.float32)
    torch_images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    masked = jax.jit(net.apply)
    keys = jax.random.split(jax.random.key(resolution), archs)
    worst = dict.fromkeys(PAIRS, 0.0)
    for arch in (space.largest(), space.smallest(), *map(space.sample, keys)):
        torch_net.set_active_subnet(**space.arch_to_dict(arch))
        subnet, sub = ofa_jax.extract(space, variables, arch)
        with torch.no_grad():
            logits = {"reference": torch_net(torch_images).numpy()}
        logits["masked"] = masked(variables, images, arch)
        # One operation at a time: 102 nets share their shapes, so few programs are compiled.
        logits["extracted"] = subnet.apply(sub, images)
        for a, b in PAIRS:
            worst[a, b] = max(worst[a, b], largest_difference(logits[a], logits[b]))
    return worst


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--archs", type=int, default=100, help="random archs a space")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 224])
    flags = parser.parse_args()
    conv.depthwise_conv = conv.grouped_conv  # one operation instead of up to 49
    print(f"{'space':<36} {'px':>4} " + " ".join(f"{a + '-' + b:>20}" for a, b in PAIRS))
    for name in GOLDEN_SPACES:
        for resolution in flags.resolutions:
            start = time.monotonic()
            worst = compare(name, resolution, flags.archs)
            figures = " ".join(f"{worst[pair]:>20.1e}" for pair in PAIRS)
            seconds = time.monotonic() - start
            print(f"{name:<36} {resolution:>4} {figures}   {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
