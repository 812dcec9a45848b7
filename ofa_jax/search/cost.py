"""What a subnet costs: multiply-accumulates and parameters, exactly as the reference counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import InvertedResidual, MobileNetSpace, ResNetSpace

UNIT = 8  # every layer of a ResNet has a multiple of 8 channels, so its MACs are one too


def macs(space: SearchSpace, arch: Arch, resolution: Any) -> Any:
    """Multiply-accumulates of one image; convolutions, SE and linear layers count.

    Examples:
      >>> space = get_space("ofa_mbv3_d234_e346_k357_w1.0")
      >>> int(macs(space, space.smallest(), 224)), int(macs(space, space.largest(), 224))
      (121278672, 566170656)

    Args:
      space: the arch's space.
      arch: one arch, or a stacked batch.
      resolution: input height = width in pixels; an int or an int32 scalar.

    Returns:
      One number an arch: int64 outside a transformation. Inside `jit` or `vmap`, where JAX has 32
      bits, int32 (exact to 2.1e9) for inverted residuals, and float32 (exact, then rounded once)
      for bottlenecks, which go beyond; int64 with `jax_enable_x64`. Source:
      `utils/flops_counter.py` of the reference.
    """
    xp, arch = integers(arch, resolution)
    if isinstance(space, ResNetSpace):
        units = _resnet_macs(xp, space, arch, resolution)
        return units * UNIT if units.dtype == np.int64 else units.astype(jnp.float32) * UNIT
    assert isinstance(space, MobileNetSpace)
    return _mobilenet_macs(xp, space, arch, resolution)


def params(space: SearchSpace, arch: Arch) -> Any:
    """Parameters of the extracted subnet, kernel transforms left out; one integer an arch.

    Examples:
      >>> space = get_space("ofa_tiny_d123_e346_k357", num_classes=10)
      >>> int(params(space, space.smallest()))
      99090
    """
    xp, arch = integers(arch)
    if isinstance(space, ResNetSpace):
        return _resnet_params(xp, space, arch)
    assert isinstance(space, MobileNetSpace)
    return _mobilenet_params(xp, space, arch)


def integers(arch: Arch, *values: Any) -> tuple[Any, Arch]:
    """The array module to count with, and the arch as its integers."""
    # NumPy has 64-bit integers without a global switch; traced archs need jnp.
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arch, values)))
    xp = jnp if traced else np
    return xp, jax.tree.map(lambda leaf: xp.asarray(leaf, int), arch)


def out_size(size: Any, stride: int) -> Any:
    """Side length after a convolution with padding k // 2."""
    return (size - 1) // stride + 1


# -- inverted residuals ----------------------------------------------------------------------------


def _mobilenet_macs(xp: Any, space: MobileNetSpace, arch: Arch, resolution: Any) -> Any:
    size = out_size(resolution, space.stem_stride)
    first = space.first_block
    total = size**2 * (27 * space.stem + 9 * first.mids[0] + first.mids[0] * first.width)
    active = space.active(arch.depth)
    for i, block in enumerate(space.blocks):
        kernel, mid, squeeze = block_dims(xp, arch, i, block)
        out = out_size(size, block.stride)
        expand = size**2 * block.in_width * mid
        rest = out**2 * mid * (kernel**2 + block.width)
        total = total + active[..., i] * (expand + rest + 2 * mid * squeeze)
        size = out
    width = space.stages[-1].width
    total = total + size**2 * width * space.head + space.head * space.features
    return total + (space.features or space.head) * space.num_classes


def _mobilenet_params(xp: Any, space: MobileNetSpace, arch: Arch) -> Any:
    first = space.first_block
    total = 27 * space.stem + 2 * space.stem  # the convolution, then its batch norm
    total += 9 * first.mids[0] + 2 * first.mids[0] + (first.mids[0] + 2) * first.width
    active = space.active(arch.depth)
    for i, block in enumerate(space.blocks):
        kernel, mid, squeeze = block_dims(xp, arch, i, block)
        convs = mid * (block.in_width + kernel**2 + block.width)
        norms = 2 * (mid + mid + block.width)
        attention = 2 * mid * squeeze + (squeeze + mid) * (squeeze > 0)
        total = total + active[..., i] * (convs + norms + attention)
    width = space.stages[-1].width
    total = total + (width + 2) * space.head + space.head * space.features
    return total + ((space.features or space.head) + 1) * space.num_classes


def block_dims(xp: Any, arch: Arch, i: int, block: InvertedResidual) -> Any:
    """(kernel, mid, squeeze) of a block as integers with the arch's batch axes."""
    kernel, expand = arch.kernel[..., i], arch.expand[..., i]
    squeezes = block.squeezes or (0,) * len(block.mids)
    return (
        xp.asarray(block.kernels, kernel.dtype)[kernel],
        xp.asarray(block.mids, kernel.dtype)[expand],
        xp.asarray(squeezes, kernel.dtype)[expand],
    )


# -- bottlenecks -----------------------------------------------------------------------------------


def _resnet_macs(xp: Any, space: ResNetSpace, arch: Arch, resolution: Any) -> Any:
    """In units of 8."""
    size = out_size(resolution, 2)
    mid, width, residual = stem_dims(xp, space, arch)
    total = size**2 * (mid // UNIT) * (27 + 9 * mid * residual + 9 * width)
    size = out_size(size, 2)  # max pooling
    active = space.active(arch.depth)
    for i, block in enumerate(space.blocks):
        in_width, mid, width = bottleneck_dims(xp, space, arch, i)
        out = out_size(size, block.stride)
        units = mid // UNIT * (size**2 * in_width + out**2 * (9 * mid + width))
        if block.projected:
            units = units + in_width // UNIT * out**2 * width
        total = total + active[..., i] * units
        size = out
    return total + width // UNIT * space.num_classes


def _resnet_params(xp: Any, space: ResNetSpace, arch: Arch) -> Any:
    mid, width, residual = stem_dims(xp, space, arch)
    total = 29 * mid + (9 * mid + 2) * mid * residual + (9 * mid + 2) * width
    active = space.active(arch.depth)
    for i, block in enumerate(space.blocks):
        in_width, mid, width = bottleneck_dims(xp, space, arch, i)
        convs = mid * (in_width + 9 * mid + width)
        shortcut = (in_width + 2) * width if block.projected else 0
        total = total + active[..., i] * (convs + 2 * (mid + mid + width) + shortcut)
    return total + (width + 1) * space.num_classes


def stem_dims(xp: Any, space: ResNetSpace, arch: Arch) -> Any:
    """(mid, width, residual) of the stem as integers; the residual is 0 or 1."""
    assert arch.width is not None
    mids, widths = (xp.asarray(w) for w in (space.stem_block.mids, space.stem_block.widths))
    residual = arch.depth[..., 0] == len(space.depths) - 1
    return mids[arch.width[..., 0]], widths[arch.width[..., 1]], residual.astype(mids.dtype)


def bottleneck_dims(xp: Any, space: ResNetSpace, arch: Arch, i: int) -> Any:
    """(in_width, mid, width) of a block as integers with the arch's batch axes."""
    assert arch.width is not None
    block = space.blocks[i]
    width, expand = arch.width[..., block.stage + 2], arch.expand[..., i]
    in_widths, mids, widths = (xp.asarray(w) for w in (block.in_widths, block.mids, block.widths))
    return in_widths[arch.width[..., space.in_gene(block)]], mids[width, expand], widths[width]
