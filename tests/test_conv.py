import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ofa_jax import conv


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [1, 4, 9, 16, 25])
def test_taps_equal_the_grouped_convolution_with_gradients(size, kernel, stride):
    rng = np.random.default_rng(size * kernel)
    x = rng.standard_normal((3, size, size, 5), np.float32)
    weight = rng.standard_normal((kernel, kernel, 1, 5), np.float32)
    grouped, grouped_vjp = jax.vjp(functools.partial(conv.grouped_conv, stride=stride), x, weight)
    taps, taps_vjp = jax.vjp(lambda x, w: conv.depthwise_conv(x, w, stride), x, weight)
    np.testing.assert_allclose(taps, grouped, rtol=1e-5, atol=1e-4)
    dy = rng.standard_normal(grouped.shape, np.float32)
    for mine, xla in zip(taps_vjp(dy), grouped_vjp(dy), strict=True):
        np.testing.assert_allclose(mine, xla, rtol=1e-4, atol=1e-3)


def test_cpu_lowers_to_taps_and_accelerators_to_the_grouped_convolution():
    x, weight = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    traced = jax.jit(lambda x, w: conv.depthwise_conv(x, w, 1)).trace(x, weight)
    for platform, expected in (("cpu", False), ("tpu", True), ("cuda", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("feature_group_count = 4" in text) == expected, platform


def test_pointwise_is_a_one_by_one_convolution():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 5), np.float32)
    weight = rng.standard_normal((5, 6), np.float32)
    expected = np.einsum("bhwi,io->bhwo", x, weight)
    np.testing.assert_allclose(conv.pointwise_conv(x, weight), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_dense_forms_are_equal_with_gradients(size, kernel, stride):
    rng = np.random.default_rng(size * kernel)
    x = rng.standard_normal((3, size, size, 5), np.float32)
    weight = rng.standard_normal((kernel, kernel, 5, 7), np.float32)
    direct, direct_vjp = jax.vjp(functools.partial(conv.direct_conv, stride=stride), x, weight)
    chosen, chosen_vjp = jax.vjp(functools.partial(conv.dense_conv, stride=stride), x, weight)
    np.testing.assert_allclose(chosen, direct, rtol=1e-5, atol=1e-4)
    dy = rng.standard_normal(direct.shape, np.float32)
    for mine, xla in zip(chosen_vjp(dy), direct_vjp(dy), strict=True):
        np.testing.assert_allclose(mine, xla, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [2, 7, 8])
def test_pooling_forms_are_equal_with_gradients(size):
    rng = np.random.default_rng(size)
    x = np.maximum(rng.standard_normal((2, size, size, 3), np.float32), 0)  # after a ReLU
    window, window_vjp = jax.vjp(lambda x: conv.window_max(x, 3, 2), x)
    chosen, chosen_vjp = jax.vjp(lambda x: conv.max_pool(x, 3, 2), x)
    np.testing.assert_array_equal(chosen, window)
    dy = rng.standard_normal(window.shape, np.float32)
    mine, xla = chosen_vjp(dy)[0], window_vjp(dy)[0]
    # Where zeros tie each form picks its own, and the ReLU before passes none of it on.
    np.testing.assert_allclose(mine * (x > 0), xla * (x > 0), rtol=1e-6)


def test_cpu_takes_products_and_accelerators_the_convolution():
    x, weight = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
    convolved = jax.jit(lambda x, w: conv.dense_conv(x, w, 1)).trace(x, weight)
    pooled = jax.jit(lambda x: conv.max_pool(x, 3, 2)).trace(x)
    for platform, expected in (("cpu", False), ("tpu", True), ("cuda", True)):
        for traced, operation in ((convolved, "convolution"), (pooled, "reduce_window")):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert (f"stablehlo.{operation}" in text) == expected, (platform, operation)
