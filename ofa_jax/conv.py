"""Convolutions and pooling by the best way of each backend, with symmetric padding k // 2.

XLA's CPU convolutions are slow where once-for-all nets need them: grouped ones 10 to 20 times, and
dense ones inside a loop or a branch, as the training step has them, 10 to 50 times in their
gradients. So CPU has forms of its own, equal in a test; TPU and GPU take XLA's. The choice is made
when the program is lowered, so compiling for another platform takes that platform's.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# -- dense -----------------------------------------------------------------------------------------


def dense_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolution, by the best way of the backend.

    Args:
      x: `[batch, height, width, in]`.
      weight: `[k, k, in, out]`, k odd.
      stride: 1 or more, both directions.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), out]`.
    """
    return lax.platform_dependent(
        x,
        weight,
        cpu=functools.partial(matmul_conv, stride=stride),
        default=functools.partial(direct_conv, stride=stride),
    )


def direct_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolution as XLA's own; shapes as in `dense_conv`."""
    pad = weight.shape[0] // 2
    return lax.conv_general_dilated(
        x, weight, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS
    )


def matmul_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolution as one product of all windows with the filters; shapes as in `dense_conv`."""

    def product(x: jax.Array, weight: jax.Array) -> jax.Array:
        k = weight.shape[0]
        windows = jnp.concatenate(list(_windows(_pad_space(x, k // 2), k, stride)), axis=-1)
        return pointwise_conv(windows, weight.reshape(-1, weight.shape[-1]))

    # The windows hold the image k * k times over: made again for the gradient, not kept.
    return jax.checkpoint(product)(x, weight)


def pointwise_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """1x1 convolution, `[batch, height, width, in]` by `[in, out]`, as one plain matrix product.

    Folding batch and space into one axis matters: on CPU the weight gradient is 5 to 10 times
    faster than that of a convolution or of a product with three leading axes.
    """
    flat = x.reshape(-1, x.shape[-1]) @ weight
    return flat.reshape(*x.shape[:-1], weight.shape[-1])


def max_pool(x: jax.Array, size: int, stride: int) -> jax.Array:
    """The largest of each `size` x `size` window of `[batch, height, width, channels]`, size odd.

    On CPU the maximum of the shifted images: its gradient is 10 times faster than XLA's.
    """
    return lax.platform_dependent(
        x,
        cpu=functools.partial(shifted_max, size=size, stride=stride),
        default=functools.partial(window_max, size=size, stride=stride),
    )


def window_max(x: jax.Array, size: int, stride: int) -> jax.Array:
    """`max_pool` as XLA's own."""
    pad = size // 2
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        (1, size, size, 1),
        (1, stride, stride, 1),
        ((0, 0), (pad, pad), (pad, pad), (0, 0)),
    )


def shifted_max(x: jax.Array, size: int, stride: int) -> jax.Array:
    """`max_pool` as the maximum of the shifted images."""
    padded = _pad_space(x, size // 2, value=-jnp.inf)
    return functools.reduce(jnp.maximum, _windows(padded, size, stride))


def _windows(padded: jax.Array, k: int, stride: int) -> Iterator[jax.Array]:
    """The k * k images that hold one element of every window, row by row."""
    height, width = ((n - k) // stride + 1 for n in padded.shape[1:3])
    for i in range(k):
        for j in range(k):
            yield _shifted(padded, i, j, height, width, stride)


# -- depthwise -------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution, by the best way of the backend: on CPU k * k taps, one by one.

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
    """Depthwise convolution as a sum over shifted inputs; shapes as in `depthwise_conv`.

    The sum is float32, as in XLA's own, whatever `x` is.
    """
    k = weight.shape[0]
    filters = weight.astype(jnp.float32).reshape(k * k, 1, 1, 1, -1)
    windows = _windows(_pad_space(x, k // 2), k, stride)
    taps = (w * f for w, f in zip(windows, filters, strict=True))
    return functools.reduce(jnp.add, taps).astype(x.dtype)


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
    padded = _pad_space(x, pad)
    many_outputs = dy.shape[1] * dy.shape[2] >= 4 * k * k
    filter_gradient = _filter_gradient_by_output if many_outputs else _filter_gradient_by_tap
    gradient = filter_gradient(padded, dy.astype(jnp.float32), k, stride)
    return dx, gradient.reshape(weight.shape).astype(weight.dtype)


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

    zero = jnp.zeros_like(dy, shape=(batch, k, k, channels))
    total, _ = lax.scan(add_row, zero, jnp.arange(height))
    return total.sum(0)


def _pad_space(x: jax.Array, pad: int, value: float = 0.0) -> jax.Array:
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=value)


def _shifted(x: jax.Array, i: int, j: int, height: int, width: int, stride: int) -> jax.Array:
    rows = slice(i, i + stride * (height - 1) + 1, stride)
    columns = slice(j, j + stride * (width - 1) + 1, stride)
    return x[:, rows, columns]
