"""Flax modules; the only package that imports flax."""

from ofa_jax.models.mobilenet import MobileNetV3
from ofa_jax.models.resnet import ResNet
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import MobileNetSpace, ResNetSpace

__all__ = ["MobileNetV3", "Network", "ResNet", "build_subnet", "build_supernet"]

Network = MobileNetV3 | ResNet


def build_supernet(space: SearchSpace) -> Network:
    """The supernet of a space: `net.apply(variables, images, arch)`."""
    if isinstance(space, ResNetSpace):
        return ResNet(space, space.stem_block, space.blocks)
    assert isinstance(space, MobileNetSpace)
    return MobileNetV3(space, space.blocks)


def build_subnet(space: SearchSpace, arch: Arch) -> Network:
    """The plain network of one concrete arch: `subnet.apply(variables, images)`, no masks."""
    if isinstance(space, ResNetSpace):
        return ResNet(space, space.active_stem(arch), space.active_blocks(arch))
    assert isinstance(space, MobileNetSpace)
    return MobileNetV3(space, space.active_blocks(arch))
