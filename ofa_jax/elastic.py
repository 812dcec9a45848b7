"""What makes a fixed-shape network elastic, as pure functions of arrays.

Masks define what is right: an inactive channel is zero after every batch norm, an inactive block
adds zero. Everything here takes traced choices and keeps every shape.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def prefix_mask(active: jax.Array, size: int) -> jax.Array:
    """`[size]` booleans, true for the first `active` (int32 scalar) channels."""
    return jnp.arange(size, dtype=jnp.int32) < active


# -- elastic kernel ----------------------------------------------------------------------------


def matrix_name(larger: int, smaller: int) -> str:
    """The parameter name of the transform from one kernel size to the next, as the reference."""
    return f"{larger}to{smaller}_matrix"


def transform_kernel(
    weight: jax.Array, matrices: dict[str, jax.Array], kernels: tuple[int, ...], size: int
) -> jax.Array:
    """The filter of kernel `size`, derived from the largest one.

    Each smaller filter is the centre of the next larger *transformed* one, flattened row-major,
    times a learned matrix that all channels share: 7 -> 5 -> 3 is a chain. Source: section 3.3 of
    the paper; `DynamicSeparableConv2d.get_active_filter` of the reference.

    Args:
      weight: `[K, K, 1, channels]`, K the largest kernel size.
      matrices: `matrix_name(l, s)` -> `[s * s, s * s]`.
      kernels: the choices, ascending.
      size: one of them.

    Returns:
      `[size, size, 1, channels]`.
    """
    chain = [k for k in reversed(kernels) if k >= size]
    for larger, smaller in itertools.pairwise(chain):
        start = (larger - smaller) // 2
        centre = weight[start : start + smaller, start : start + smaller]
        flat = centre.reshape(smaller * smaller, -1)
        weight = (matrices[matrix_name(larger, smaller)] @ flat).reshape(centre.shape)
    return weight


def elastic_kernel(
    weight: jax.Array, matrices: dict[str, jax.Array], kernels: tuple[int, ...], index: jax.Array
) -> jax.Array:
    """The chosen filter, centred in a zero frame of the largest size: same shape for every choice.

    With padding K // 2 the frame computes what the small filter does with its own padding, at
    stride 1 and 2. `index` is an int32 scalar; shapes as in `transform_kernel`.
    """
    largest = kernels[-1]
    framed = []
    for size in kernels:
        margin = (largest - size) // 2
        small = transform_kernel(weight, matrices, kernels, size)
        framed.append(jnp.pad(small, ((margin, margin), (margin, margin), (0, 0), (0, 0))))
    return lax.select_n(index, *framed)


# -- narrower arrays -----------------------------------------------------------------------------


def leading(small: Any, array: Any) -> Any:
    """The first entries of `array` along every axis, in the shape of `small`."""
    return array[tuple(slice(n) for n in small.shape)]


def grow(small: jax.Array, array: jax.Array) -> jax.Array:
    """`array` with its first entries along every axis replaced by `small`: undoes `leading`."""
    return lax.dynamic_update_slice(array, small, (0,) * array.ndim)


# -- masked batch norm -----------------------------------------------------------------------------


def batch_moments(x: jax.Array, axis: str | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance per channel of `[batch, height, width, channels]`, in float32.

    With a mesh `axis`, of the equal parts that its devices hold together.
    """

    def mean_over_all(values: jax.Array) -> jax.Array:
        mean = values.mean((0, 1, 2))
        return lax.pmean(mean, axis) if axis else mean

    x = x.astype(jnp.float32)
    mean = mean_over_all(x)
    return mean, mean_over_all(jnp.square(x - mean[None, None, None, :]))


def normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    eps: float,
    mask: jax.Array | None,
) -> jax.Array:
    """Batch norm with fixed `[channels]` statistics; channels outside `mask` come out as zero."""
    factor = scale * lax.rsqrt(variance + eps)
    offset = bias - mean * factor
    if mask is not None:
        # Zeroing factor and offset zeroes the output and every gradient of the channel, for the
        # price of two vectors instead of one more pass over the activations.
        factor, offset = jnp.where(mask, factor, 0.0), jnp.where(mask, offset, 0.0)
    y = x.astype(jnp.float32) * factor[None, None, None, :] + offset[None, None, None, :]
    return y.astype(x.dtype)
