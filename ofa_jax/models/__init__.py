"""Flax modules: the networks; besides them only the accuracy predictor is one."""

from ofa_jax.errors import InputError
from ofa_jax.models.mobilenet import MobileNetV3
from ofa_jax.models.resnet import ResNet
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import MobileNetSpace, ResNetSpace

__all__ = [
    "MobileNetV3",
    "Network",
    "ResNet",
    "best_compute",
    "build_subnet",
    "build_supernet",
    "is_supernet",
]

Network = MobileNetV3 | ResNet
WAYS = ("masks", "branches")


def build_supernet(space: SearchSpace, compute: str = "masks") -> Network:
    """The supernet of a space: `net.apply(variables, images, arch)`.

    Args:
      space: any of `list_spaces()`, or one of your own.
      compute: "masks" computes every elastic block at its largest and zeroes the rest;
        "branches" computes only the sampled sizes. Equal results; for the cost see
        `best_compute`.

    Raises:
      ValueError: another way to compute.
    """
    if compute not in WAYS:
        raise InputError(f"compute={compute!r}: expected one of {', '.join(WAYS)}")
    if isinstance(space, ResNetSpace):
        return ResNet(space, space.stem_block, space.blocks, compute=compute)
    assert isinstance(space, MobileNetSpace)
    return MobileNetV3(space, space.blocks, compute=compute)


def is_supernet(net: Network) -> bool:
    """Whether a network takes an arch; a subnet has its own."""
    return net.blocks == net.space.blocks


def best_compute(asked: str, platform: str) -> str:
    """What `asked` is on a platform ("cpu", "tpu", "gpu"): "auto" takes what measured best there.

    On CPU a random subnet takes half of the largest one's time as branches, and compiles three
    times as long. The TPU compiler needs many times as long for them and holds more memory.
    """
    if asked != "auto":
        return asked
    return "branches" if platform == "cpu" else "masks"


def build_subnet(space: SearchSpace, arch: Arch) -> Network:
    """The plain network of one concrete arch: `subnet.apply(variables, images)`, no masks."""
    if isinstance(space, ResNetSpace):
        return ResNet(space, space.active_stem(arch), space.active_blocks(arch))
    assert isinstance(space, MobileNetSpace)
    return MobileNetV3(space, space.active_blocks(arch))
