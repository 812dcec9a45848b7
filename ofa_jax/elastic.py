"""What makes a fixed-shape network elastic, as pure functions of arrays.

Masks define what is right: an inactive channel is zero after every batch norm, an inactive block
adds zero. Everything here takes traced choices and keeps every shape.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def prefix_mask(active: jax.Array, size: int) -> jax.Array:
    """`[size]` booleans, true for the first `active` (int32 scalar) channels."""
    return jnp.arange(size) < active


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


# -- masked batch norm -----------------------------------------------------------------------------


def batch_moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance per channel of `[batch, height, width, channels]`, in float32."""
    x = x.astype(jnp.float32)
    mean = x.mean((0, 1, 2))
    variance = jnp.square(x - mean[None, None, None, :]).mean((0, 1, 2))
    return mean, variance


def normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    eps: float,
    mask: jax.Array | None,
) -> jax.Array:
    """Batch norm with given `[channels]` statistics; channels outside `mask` come out as zero."""
    factor = scale * lax.rsqrt(variance + eps)
    offset = bias - mean * factor
    if mask is not None:
        # Zeroing factor and offset zeroes the output and every gradient of the channel, for the
        # price of two vectors instead of one more pass over the activations.
        factor, offset = jnp.where(mask, factor, 0.0), jnp.where(mask, offset, 0.0)
    y = x * factor[None, None, None, :] + offset[None, None, None, :]
    return y.astype(x.dtype)


# -- depthwise convolution -------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution with symmetric padding k // 2, by the best way of the backend.

    XLA's grouped convolution is 10 to 20 times too slow on CPU (and its gradients 20 times), so
    there the k * k taps are summed one by one. TPU and GPU take the grouped convolution. The
    choice is made when the program is lowered, so compiling for another platform takes its own.

    Args:
      x: `[batch, height, width, channels]`.
      weight: `[k, k, 1, channels]`, k odd.
      stride: 1 or more, both directions.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), channels]`.
    """
    return lax.platform_dependent(
        x,
        weight,
        cpu=functools.partial(taps_conv, stride=stride),
        default=functools.partial(grouped_conv, stride=stride),
    )


def _depthwise_forward(x: jax.Array, weight: jax.Array, stride: int) -> tuple[jax.Array, Any]:
    return depthwise_conv(x, weight, stride), (x, weight)


def _depthwise_backward(stride: int, residuals: Any, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = residuals
    return lax.platform_dependent(
        x,
        weight,
        dy,
        cpu=functools.partial(_taps_gradients, stride=stride),
        default=functools.partial(_grouped_gradients, stride=stride),
    )


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def grouped_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution as XLA's grouped convolution; shapes as in `depthwise_conv`."""
    pad = weight.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _grouped_gradients(
    x: jax.Array, weight: jax.Array, dy: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    _, vjp = jax.vjp(functools.partial(grouped_conv, stride=stride), x, weight)
    return vjp(dy)


def taps_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution as a sum over shifted inputs; shapes as in `depthwise_conv`."""
    k = weight.shape[0]
    x = _pad_space(x, k // 2, k // 2)
    height, width = ((n - k) // stride + 1 for n in x.shape[1:3])
    total = jnp.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(k):
        for j in range(k):
            tap = weight[i, j, 0][None, None, None, :]
            total = total + _shifted(x, i, j, height, width, stride) * tap
    return total


def _taps_gradients(
    x: jax.Array, weight: jax.Array, dy: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    k = weight.shape[0]
    pad = k // 2
    # Input gradient: spread dy over the stride's grid, then taps with the flipped filter.
    height, width = x.shape[1:3]
    after = [(n - 1) % stride for n in (height, width)]
    spread = lax.pad(
        dy,
        jnp.zeros((), dy.dtype),
        ((0, 0, 0), (0, after[0], stride - 1), (0, after[1], stride - 1), (0, 0, 0)),
    )
    dx = taps_conv(spread, weight[::-1, ::-1], stride=1)
    padded = _pad_space(x, pad, pad)
    many_outputs = dy.shape[1] * dy.shape[2] >= 4 * k * k
    filter_gradient = _filter_gradient_by_output if many_outputs else _filter_gradient_by_tap
    return dx, filter_gradient(padded, dy, k, stride).reshape(weight.shape)


def _filter_gradient_by_tap(padded: jax.Array, dy: jax.Array, k: int, stride: int) -> jax.Array:
    # One reduction over all outputs per tap; a scan, so that k * k of them compile as one.
    batch, height, width, channels = dy.shape
    span = (batch, stride * (height - 1) + 1, stride * (width - 1) + 1, channels)

    def tap_gradient(offset: jax.Array) -> jax.Array:
        window = lax.dynamic_slice(padded, (0, offset // k, offset % k, 0), span)
        return (window[:, ::stride, ::stride] * dy).sum((0, 1, 2))

    return lax.map(tap_gradient, jnp.arange(k * k))


def _filter_gradient_by_output(padded: jax.Array, dy: jax.Array, k: int, stride: int) -> jax.Array:
    # The other way round: all k * k taps grow together, one output column after the other, which
    # vectorises over channels without a reduction: 5 times faster at 28 px, slower below 4 k^2
    # outputs, where the [batch, k, k, channels] accumulator is larger than the image.
    batch, height, width, channels = dy.shape

    def add_row(total: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        rows = lax.dynamic_slice_in_dim(padded, row * stride, k, axis=1)
        dy_row = lax.dynamic_slice_in_dim(dy, row, 1, axis=1)
        for column in range(width):
            window = rows[:, :, column * stride : column * stride + k]
            total = total + window * dy_row[:, :, column : column + 1]
        return total, None

    zero = jnp.zeros((batch, k, k, channels), dy.dtype)
    total, _ = lax.scan(add_row, zero, jnp.arange(height))
    return total.sum(0)


def pointwise_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """1x1 convolution, `[batch, height, width, in]` by `[in, out]`, as one plain matrix product.

    Folding batch and space into one axis matters: on CPU the weight gradient is 5 to 10 times
    faster than that of a convolution or of a product with three leading axes.
    """
    flat = x.reshape(-1, x.shape[-1]) @ weight
    return flat.reshape(*x.shape[:-1], weight.shape[-1])


def _pad_space(x: jax.Array, before: int, after: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def _shifted(x: jax.Array, i: int, j: int, height: int, width: int, stride: int) -> jax.Array:
    rows = slice(i, i + stride * (height - 1) + 1, stride)
    columns = slice(j, j + stride * (width - 1) + 1, stride)
    return x[:, rows, columns]
