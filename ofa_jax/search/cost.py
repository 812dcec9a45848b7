"""What a subnet costs: multiply-accumulates and parameters, exactly as the reference counts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.space import Arch, SearchSpace
from ofa_jax.topology import Conv, Dense, Layer, Size, SqueezeExcite

Numbers = Callable[[Size], Any]
HALF = 16  # bits: counts beyond 32 are kept as two halves
INT32 = 2**31 - 1


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
      bits, int32, and float32 (exact, then rounded once) where the space's largest net goes beyond;
      int64 with `jax_enable_x64`. Source: `utils/flops_counter.py` of the reference.
    """
    xp, arch = integers(arch, resolution)
    if arch.depth.dtype == np.int32 and _most(space, resolution) > INT32:
        return _in_halves(space, arch, resolution)
    of = numbers(arch, xp)
    return sum(of(layer.kept) * layer_macs(layer, of, resolution) for layer in space.layers)


def params(space: SearchSpace, arch: Arch) -> Any:
    """Parameters of the extracted subnet, kernel transforms left out; one integer an arch.

    Examples:
      >>> space = get_space("ofa_tiny_d123_e346_k357", num_classes=10)
      >>> int(params(space, space.smallest()))
      99090
    """
    xp, arch = integers(arch)
    of = numbers(arch, xp)
    return sum(of(layer.kept) * layer_params(layer, of) for layer in space.layers)


def integers(arch: Arch, *values: Any) -> tuple[Any, Arch]:
    """The array module to count with, and the arch as its integers."""
    # NumPy has 64-bit integers without a global switch; traced archs need jnp.
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arch, values)))
    xp = jnp if traced else np
    return xp, jax.tree.map(lambda leaf: xp.asarray(leaf, int), arch)


def numbers(arch: Arch, xp: Any) -> Numbers:
    """The numbers of an arch's sizes, each looked up once."""
    return functools.cache(lambda size: size.of(arch, xp))


def layer_macs(layer: Layer, of: Numbers, resolution: Any) -> Any:
    """Multiply-accumulates of a layer that is kept."""
    before, after = of(layer.source.channels), of(layer.output.channels)
    match layer.operation:
        case Conv(kernel=kernel, depthwise=depthwise):
            window = of(kernel) ** 2 * (1 if depthwise else before)
            return layer.output.side(resolution) ** 2 * window * after
        case SqueezeExcite(squeeze=squeeze):
            return 2 * before * of(squeeze)
        case Dense():
            return before * after
    return 0


def layer_params(layer: Layer, of: Numbers) -> Any:
    """Weights of a layer that is kept, batch norms and biases included."""
    before, after = of(layer.source.channels), of(layer.output.channels)
    match layer.operation:
        case Conv(kernel=kernel, depthwise=depthwise):
            return (of(kernel) ** 2 * (1 if depthwise else before) + 2) * after
        case SqueezeExcite(squeeze=squeeze):
            units = of(squeeze)
            return 2 * before * units + units + before
        case Dense(bias=bias):
            return (before + bias) * after
    return 0


def _most(space: SearchSpace, resolution: Any) -> int:
    """MACs of the largest net, at the resolution if it is known, and at least the space's own."""
    known = 0 if isinstance(resolution, jax.core.Tracer) else int(resolution)
    return _largest_macs(space, max(known, space.resolutions[-1]))


@functools.cache
def _largest_macs(space: SearchSpace, resolution: int) -> int:
    with jax.ensure_compile_time_eval():
        return int(macs(space, space.largest(), resolution))


def _in_halves(space: SearchSpace, arch: Arch, resolution: Any) -> jax.Array:
    """Float32 MACs, summed exactly: each layer's are below 2^31, all layers' are not."""
    of = numbers(arch, jnp)
    high = low = jnp.int32(0)
    for layer in space.layers:
        count = of(layer.kept) * layer_macs(layer, of, resolution)
        high, low = high + (count >> HALF), low + (count & ((1 << HALF) - 1))
    high, low = high + (low >> HALF), low & ((1 << HALF) - 1)
    return high.astype(jnp.float32) * (1 << HALF) + low.astype(jnp.float32)
