"""Flax modules; the only package that imports flax."""

from ofa_jax.models.mobilenet import MobileNetV3
from ofa_jax.space import Arch, SearchSpace


def build_supernet(space: SearchSpace) -> MobileNetV3:
    """The supernet of a space: `net.apply(variables, images, arch)`."""
    return MobileNetV3(space, space.blocks)


def build_subnet(space: SearchSpace, arch: Arch) -> MobileNetV3:
    """The plain network of one concrete arch: `subnet.apply(variables, images)`, no masks."""
    space.check_single(arch)
    return MobileNetV3(space, space.active_blocks(arch))
