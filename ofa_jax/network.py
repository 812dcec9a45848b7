"""The network of a space, whatever its family: as supernet and as subnet."""

import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.families import Network, family_of
from ofa_jax.space import Arch, SearchSpace

__all__ = ["Network", "best_compute", "build_subnet", "build_supernet", "is_supernet"]

WAYS = ("masks", "branches", "widths")
FEW = 4  # the most variants of a block that "auto" has the TPU compiler build


def build_supernet(space: SearchSpace, compute: str = "masks") -> Network:
    """The supernet of a space: `net.apply(variables, images, arch)`.

    Args:
      space: any of `list_spaces()`, or one of your own.
      compute: "masks" computes every elastic block at its largest and zeroes the rest;
        "branches" computes only the sampled sizes; "widths" only the sampled blocks and widths,
        each kernel at its largest. Equal results; for the cost see `best_compute`.

    Raises:
      ValueError: another way to compute.
    """
    if compute not in WAYS:
        raise InputError(f"compute={compute!r}: expected one of {', '.join(WAYS)}")
    return family_of(space).network(space, compute=compute)


def is_supernet(net: Network) -> bool:
    """Whether a network takes an arch; a subnet has its own."""
    return net.genes is None


def best_compute(requested: str, platform: str, space: SearchSpace) -> str:
    """What `requested` is on "cpu", "tpu" or "gpu": "auto" takes what is best there for a space.

    On CPU a random subnet takes half of the largest one's time as branches, and compiles three
    times as long. On TPU, by its compiler, it moves half of the bytes as widths, and a kernel's
    size makes no difference to them; more than a few variants take too long to compile.
    """
    if requested != "auto":
        return requested
    if platform == "cpu":
        return "branches"
    few = platform == "tpu" and all(len(block.variants) <= FEW for block in space.blocks)
    return "widths" if few else "masks"


def build_subnet(space: SearchSpace, arch: Arch) -> Network:
    """The plain network of one concrete arch: `subnet.apply(variables, images)`, no masks."""
    indices = space.indices(arch)
    active = space.active(np.asarray(indices["depth"])).tolist()
    for field in ("kernel", "expand"):  # what is skipped makes no difference between nets
        indices[field] = [i * keep for i, keep in zip(indices[field], active, strict=True)]
    return family_of(space).network(space, tuple(map(tuple, indices.values())))
