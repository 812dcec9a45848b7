"""The activations a subnet holds at once: what decides whether it fits a small device."""

import functools
from typing import Any

from ofa_jax.search.cost import block_dims, bottleneck_dims, integers, out_size, stem_dims
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import MobileNetSpace, ResNetSpace


def activation_bytes(space: SearchSpace, arch: Arch, resolution: Any, itemsize: int = 4) -> Any:
    """Peak bytes of activations for one image, layer by layer, weights not counted.

    A layer holds its input and its output, and a block with a shortcut its own input until the
    two are added; batch norm and activation work in place.

    Args:
      space: the arch's space.
      arch: one arch, or a stacked batch.
      resolution: input height = width in pixels; an int or an int32 scalar.
      itemsize: bytes of a number, 4 for float32.

    Returns:
      One integer an arch, as `macs` does.
    """
    xp, arch = integers(arch, resolution)
    if isinstance(space, ResNetSpace):
        held = _resnet(xp, space, arch, resolution)
    else:
        assert isinstance(space, MobileNetSpace)
        held = _mobilenet(xp, space, arch, resolution)
    return functools.reduce(xp.maximum, held) * itemsize


def _mobilenet(xp: Any, space: MobileNetSpace, arch: Arch, resolution: Any) -> list[Any]:
    size = out_size(resolution, space.stem_stride)
    first = space.first_block
    inside = size**2 * first.in_width
    held = [3 * resolution**2 + inside, 2 * inside]
    held.append(inside * (1 + first.residual) + size**2 * first.width)
    active = space.active(arch.depth)
    for i, block in enumerate(space.blocks):
        _, mid, _ = block_dims(xp, arch, i, block)
        out = out_size(size, block.stride)
        before, after = size**2 * block.in_width, out**2 * block.width
        kept = before * block.residual
        layers = (
            before + size**2 * mid,
            kept + (size**2 + out**2) * mid,
            kept + out**2 * mid + after,
        )
        held += [active[..., i] * layer for layer in layers]
        size = out
    held.append(size**2 * (space.stages[-1].width + space.head))
    return [held_by + xp.zeros_like(arch.depth[..., 0]) for held_by in held]


def _resnet(xp: Any, space: ResNetSpace, arch: Arch, resolution: Any) -> list[Any]:
    size = out_size(resolution, 2)
    mid, width, residual = stem_dims(xp, space, arch)
    pooled = out_size(size, 2)
    held = [3 * resolution**2 + size**2 * mid, residual * 2 * size**2 * mid,
            size**2 * (mid + width), (size**2 + pooled**2) * width]  # fmt: skip
    size = pooled
    active = space.active(arch.depth)
    for i, block in enumerate(space.blocks):
        in_width, mid, width = bottleneck_dims(xp, space, arch, i)
        out = out_size(size, block.stride)
        before, after = size**2 * in_width, out**2 * width
        layers = [before + size**2 * mid, before + (size**2 + out**2) * mid,
                  before + out**2 * mid + after]  # fmt: skip
        if block.projected:
            halved = out**2 * in_width * (block.stride == 2)
            layers += [
                before + halved + after,
                (halved if block.stride == 2 else before) + 2 * after,
            ]
        held += [active[..., i] * layer for layer in layers]
        size = out
    return held
