"""Subnets evaluated per hour: each calibrated on 2,000 images, then run over 10,000.

    pip install -e ".[bench]"
    python -m benchmarks.evaluate_subnets --against-once-for-all

Images are made up and lie in memory, for us and for the reference. `calibrate_each` and `measure`
take a batch of archs at a time, one after the other; beside them masks in one `vmap` over archs.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from ofa_jax import mesh
from ofa_jax.families import get_space
from ofa_jax.network import Network, best_compute, build_supernet
from ofa_jax.normalization import Normalization, normalize_images
from ofa_jax.space import Arch
from ofa_jax.subnets.calibrate import batch_moments, calibrate_each, group
from ofa_jax.subnets.evaluate import measure

Tree = Any


class Images:
    """Calibration and test images, uint8, in batches."""

    def __init__(self, args: argparse.Namespace):
        rng = np.random.default_rng(0)
        shape = (args.batch_size, args.resolution, args.resolution, 3)
        batches = (args.calibration_images + args.test_images) // args.batch_size
        images = [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(batches)]
        split = args.calibration_images // args.batch_size
        zeros, ones = np.zeros(args.batch_size, np.int32), np.ones(args.batch_size, np.float32)
        self.calibration = images[:split]
        self.test = [{"image": i, "label": zeros, "weight": ones} for i in images[split:]]


def one_after_the_other(net: Network, variables: Tree, archs: Arch, images: Images) -> None:
    normal, devices = Normalization(), mesh.data_mesh(1)
    own = group([jax.tree.map(lambda genes, i=i: genes[i], archs) for i in range(len(archs.depth))])
    batches = (normalize_images(jnp.asarray(i), *normal) for i in images.calibration)
    stats = calibrate_each(net, variables, own, batches)
    measure(net, variables["params"], stats, own, images.test, normal, devices)


def vmapped(net: Network, variables: Tree, archs: Arch, images: Images) -> None:
    """The same work by one `vmap`, which computes every branch: for masks."""

    @jax.jit
    def moments(pixels: jax.Array) -> Tree:
        normal = normalize_images(pixels)
        return jax.vmap(lambda arch: batch_moments(net, variables, arch, normal)["stats"])(archs)

    @jax.jit
    def correct(stats: Tree, batch: Any) -> jax.Array:
        normal = normalize_images(batch["image"], *Normalization())

        def logits(batch_stats: Tree, arch: Arch) -> Any:
            return net.apply({**variables, "batch_stats": batch_stats}, normal, arch)

        return (jax.vmap(logits)(stats, archs).argmax(-1) == batch["label"][None]).sum(-1)

    found = [moments(pixels) for pixels in images.calibration]
    stats = jax.tree.map(lambda *batches: sum(batches) / len(batches), *found)
    jax.block_until_ready([correct(stats, batch) for batch in images.test])


def seconds_each(work: Callable[[], Any], subnets: int, repeats: int) -> float:
    """Seconds for a subnet, the best of some times."""
    return min(harness.timed(work, repeats)) / subnets


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_d234_e346_k357_w1.0")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--calibration_images", type=int, default=2000)
    parser.add_argument("--test_images", type=int, default=10_000)
    parser.add_argument("--batch_size", type=int, default=200)
    parser.add_argument("--subnets", type=int, default=6, help="at a time, random")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--against-once-for-all", action="store_true")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    if args.against_once_for_all:
        harness.needs("torch", "ofa")
    space, images = get_space(args.space, num_classes=args.classes), Images(args)
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), args.subnets))
    masks = build_supernet(space)
    pixel = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(masks.init)(jax.random.key(0), pixel, space.largest())
    way = best_compute("auto", jax.default_backend(), space)
    contenders = {
        f"ofa_jax, {way}": (one_after_the_other, masks.clone(compute=way)),
        "ofa_jax, masks": (one_after_the_other, masks),
        "ofa_jax, masks, vmapped": (vmapped, masks),
    }
    seconds: dict[str, float] = {}
    for name, (evaluate, net) in contenders.items():
        seconds[name] = seconds_each(
            functools.partial(evaluate, net, variables, archs, images),
            args.subnets,
            args.repeats,
        )
        print(f"  {name}: {seconds[name]:.2f} s a subnet", flush=True)
    if args.against_once_for_all:
        from benchmarks.once_for_all import LAYOUTS, Reference

        for layout in LAYOUTS:
            other, name = Reference(space, layout), f"once-for-all, {layout}"
            size = (args.batch_size, args.resolution)
            calibration = [other.images(*size) for _ in images.calibration]
            test = [other.images(*size) for _ in images.test]

            def some(other: Any = other, calibration: Any = calibration, test: Any = test) -> None:
                for _ in range(args.subnets):
                    other.evaluate(calibration, test)

            seconds[name] = seconds_each(some, args.subnets, args.repeats)
            print(f"  {name}: {seconds[name]:.2f} s a subnet", flush=True)
    first = next(iter(seconds.values()))
    print(f"\n{'':28}{'s a subnet':>12}{'an hour':>10}{'our ratio':>11}")
    for name, value in seconds.items():
        print(f"{name:28}{value:12.2f}{3600 / value:10.0f}{value / first:10.2f}x")
    harness.finish(args.json, {"arguments": vars(args), "seconds_a_subnet": seconds})


if __name__ == "__main__":
    main()
