"""What a subnet costs: multiply-accumulates and parameters, exactly as the reference counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.space import Arch, Block, SearchSpace


def macs(space: SearchSpace, arch: Arch, resolution: Any) -> Any:
    """Multiply-accumulates of one image; convolutions, SE and linear layers count.

    Args:
      space: the arch's space.
      arch: one arch, or a stacked batch.
      resolution: input height = width in pixels; an int or an int32 scalar.

    Returns:
      One integer an arch: int64 outside a transformation, int32 inside `jit` or `vmap` (exact to
      2.1e9). Source: `utils/flops_counter.py` of the reference.
    """
    xp, arch = _integers(arch, resolution)
    return _macs(xp, space, arch, resolution)


def params(space: SearchSpace, arch: Arch) -> Any:
    """Parameters of the extracted subnet, kernel transforms left out; shapes as in `macs`."""
    xp, arch = _integers(arch)
    return _params(xp, space, arch)


def _integers(arch: Arch, *values: Any) -> tuple[Any, Arch]:
    """The array module to count with, and the arch as its integers."""
    # NumPy has 64-bit integers without a global switch; traced archs need jnp.
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arch, values)))
    xp, dtype = (jnp, jnp.int32) if traced else (np, np.int64)
    return xp, jax.tree.map(lambda leaf: xp.asarray(leaf, dtype), arch)


def _block_dims(xp: Any, space: SearchSpace, arch: Arch, index: int, block: Block) -> Any:
    """(active, kernel, mid, squeeze) of a block as integers with the arch's batch axes."""
    kernel, expand = arch.kernel[..., index], arch.expand[..., index]
    depth = xp.asarray(space.stage_depths[block.stage])[arch.depth[..., block.stage]]
    active = (block.position < depth).astype(kernel.dtype)
    squeezes = block.squeezes or (0,) * len(block.mids)
    return (
        active,
        xp.asarray(block.kernels, kernel.dtype)[kernel],
        xp.asarray(block.mids, kernel.dtype)[expand],
        xp.asarray(squeezes, kernel.dtype)[expand],
    )


def _macs(xp: Any, space: SearchSpace, arch: Arch, resolution: Any) -> Any:
    size = _out(resolution, space.stem_stride)
    first = space.first_block
    total = size**2 * (27 * space.stem + 9 * first.mids[0] + first.mids[0] * first.width)
    for index, block in enumerate(space.blocks):
        active, kernel, mid, squeeze = _block_dims(xp, space, arch, index, block)
        out = _out(size, block.stride)
        expand = size**2 * block.in_width * mid
        rest = out**2 * mid * (kernel**2 + block.width)
        total = total + active * (expand + rest + 2 * mid * squeeze)
        size = out
    width = space.stages[-1].width
    total = total + size**2 * width * space.head + space.head * space.features
    return total + (space.features or space.head) * space.num_classes


def _params(xp: Any, space: SearchSpace, arch: Arch) -> Any:
    first = space.first_block
    total = 27 * space.stem + 2 * space.stem  # the convolution, then its batch norm
    total += 9 * first.mids[0] + 2 * first.mids[0] + (first.mids[0] + 2) * first.width
    for index, block in enumerate(space.blocks):
        active, kernel, mid, squeeze = _block_dims(xp, space, arch, index, block)
        convs = mid * (block.in_width + kernel**2 + block.width)
        norms = 2 * (mid + mid + block.width)
        attention = 2 * mid * squeeze + (squeeze + mid) * (squeeze > 0)
        total = total + active * (convs + norms + attention)
    width = space.stages[-1].width
    total = total + (width + 2) * space.head + space.head * space.features
    return total + ((space.features or space.head) + 1) * space.num_classes


def _out(size: Any, stride: int) -> Any:
    """Side length behind a convolution with padding k // 2."""
    return (size - 1) // stride + 1
