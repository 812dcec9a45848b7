"""The fastest convolutions and pooling for each backend, with symmetric padding k // 2.

XLA's CPU convolutions are slow where once-for-all nets need them: grouped ones 10 to 20 times, and
dense ones inside a loop or a branch, as the training step has them, 10 to 50 times in their
gradients. So CPU has forms of its own, equal in a test; TPU and GPU take XLA's. The choice is made
when the program is lowered, so compiling for another platform takes that platform's.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Products that a pass of the depthwise filter gradient sums on CPU: fewer pass over the sum more
# often, more no longer stay in the cache.
TERMS = 16

Taps = list[tuple[int, int]]

# -- dense -----------------------------------------------------------------------------------------


def dense_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolution, as is fastest on the backend.

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
    """Depthwise convolution, as is fastest on the backend: on CPU k * k taps, one by one.

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


@functools.partial(jax.jit, static_argnames="stride")
def taps_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution as a sum over shifted inputs; shapes as in `depthwise_conv`.

    The sum is float32, as in XLA's own, whatever `x` is.
    """
    size = weight.shape[0]
    height, width = (-(-n // stride) for n in x.shape[1:3])
    rows, columns = ([(tap, tap) for tap in _taps_inside(n, size, stride)] for n in x.shape[1:3])
    padded = _pad_space(x, size // 2)
    return _sum_of_taps(padded, weight, rows, columns, height, width, stride).astype(x.dtype)


@functools.partial(jax.jit, static_argnames="stride")
def _taps_gradients(
    x: jax.Array, weight: jax.Array, dy: jax.Array, stride: int
) -> tuple[jax.Array, jax.Array]:
    dy = dy.astype(jnp.float32)
    gradient = _filter_gradient(x, dy, weight.shape[0], stride)
    return _input_gradient(x, weight, dy, stride), gradient.astype(weight.dtype)


def _input_gradient(x: jax.Array, weight: jax.Array, dy: jax.Array, stride: int) -> jax.Array:
    # The input pixels of a phase (row and column modulo the stride) all meet the same few taps: a
    # stride-1 sum over dy for each phase, then the phases are interleaved. Spreading dy over the
    # stride's grid instead would multiply by zeros, three of four times at stride 2.
    size, (height, width) = weight.shape[0], dy.shape[1:3]
    margin = size // 2 // stride + 1
    padded = _pad_space(dy, margin)

    def of_phase(row: int, column: int) -> jax.Array:
        rows, columns = (
            [(tap, margin + shift) for tap, shift in _taps_of_phase(n, size, stride, phase)]
            for n, phase in ((height, row), (width, column))
        )
        return _sum_of_taps(padded, weight, rows, columns, height, width, 1)

    phases = range(stride)
    dx = jnp.stack([jnp.stack([of_phase(i, j) for j in phases], 3) for i in phases], 2)
    dx = dx.reshape(x.shape[0], height * stride, width * stride, x.shape[-1])
    return dx[:, : x.shape[1], : x.shape[2]].astype(x.dtype)


def _filter_gradient(x: jax.Array, dy: jax.Array, size: int, stride: int) -> jax.Array:
    # All taps grow together, row after row of outputs, in a pass that vectorises over channels
    # without a reduction. A pass sums TERMS products: the row's, of as many images as it takes.
    batch, height, width, channels = dy.shape
    most = min(max(TERMS // width, 1), batch)
    images = max(n for n in range(1, most + 1) if batch % n == 0)
    padded = _pad_space(x.astype(jnp.float32), size // 2)
    down, across = (_taps_inside(n, size, stride) for n in x.shape[1:3])
    shape = (batch // images, len(down), len(across), channels)

    def add_row(row: jax.Array, total: jax.Array) -> jax.Array:
        # Each product slices for itself: a slice that several share would be copied before.
        take = functools.partial(lax.dynamic_slice, allow_negative_indices=False)
        top = row * stride + down[0]
        for first, column in itertools.product(range(0, batch, shape[0]), range(width)):
            window = take(padded, (first, top, column * stride + across[0], 0), shape)
            output = take(dy, (first, row, column, 0), (shape[0], 1, 1, channels))
            product = lax.mul(window, lax.broadcast_in_dim(output, shape, range(4)))
            total = lax.add(total, product)
        return total

    total = lax.fori_loop(0, height, add_row, jnp.zeros_like(dy, shape=shape))
    margins = [(taps[0], size - 1 - taps[-1]) for taps in (down, across)]
    return jnp.pad(total.sum(0), (*margins, (0, 0)))[:, :, None]


def _sum_of_taps(
    padded: jax.Array, weight: jax.Array, rows: Taps, columns: Taps, height: int, width: int,
    stride: int,
) -> jax.Array:  # fmt: skip
    """Filter taps times shifted images, summed in float32; (tap, where its image starts)."""
    padded, filters = padded.astype(jnp.float32), weight.astype(jnp.float32)
    filters = filters.reshape(1, *weight.shape[:2], -1)
    shape = (padded.shape[0], height, width, padded.shape[-1])

    def product(row: tuple[int, int], column: tuple[int, int]) -> jax.Array:
        image = _shifted(padded, row[1], column[1], height, width, stride)
        tap = _shifted(filters, row[0], column[0], 1, 1, 1)
        return lax.mul(image, lax.broadcast_in_dim(tap, shape, range(4)))

    # Plain `lax`: a net has thousands of these, and tracing `jnp` takes several times as long.
    products = itertools.starmap(product, itertools.product(rows, columns))
    return functools.reduce(lax.add, products, jnp.zeros_like(padded, shape=shape))


def _taps_inside(length: int, size: int, stride: int) -> list[int]:
    """The taps along an axis that meet the image somewhere: a 7x7 filter has one on one pixel."""
    starts = [out * stride - size // 2 for out in range(-(-length // stride))]
    return [tap for tap in range(size) if any(0 <= s + tap < length for s in starts)]


def _taps_of_phase(outputs: int, size: int, stride: int, phase: int) -> Taps:
    """(tap, shift of dy) along an axis for the inputs of a phase, where it meets an output."""
    shifts = [(tap, phase + size // 2 - tap) for tap in range(size)]
    whole = [(tap, shift // stride) for tap, shift in shifts if shift % stride == 0]
    return [(tap, shift) for tap, shift in whole if abs(shift) < outputs]


def _pad_space(x: jax.Array, pad: int, value: float = 0.0) -> jax.Array:
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=value)


def _shifted(x: jax.Array, i: int, j: int, height: int, width: int, stride: int) -> jax.Array:
    ends = (i + stride * (height - 1) + 1, j + stride * (width - 1) + 1)
    start, limit = (0, i, j, 0), (x.shape[0], *ends, x.shape[-1])
    return lax.slice(x, start, limit, (1, stride, stride, 1))
