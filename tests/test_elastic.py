import jax.numpy as jnp
import numpy as np
import pytest

from ofa_jax import conv, elastic

KERNELS = (3, 5, 7)


def random_kernel(channels=4, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((7, 7, 1, channels), np.float32)
    matrices = {
        "5to3_matrix": rng.standard_normal((9, 9), np.float32),
        "7to5_matrix": rng.standard_normal((25, 25), np.float32),
    }
    return weight, matrices


def test_kernel_transforms_are_the_references_chain():
    weight, matrices = random_kernel()
    for channel in range(4):  # F.linear(x, W) = x @ W.T on the row-major centre
        five = matrices["7to5_matrix"] @ weight[1:6, 1:6, 0, channel].reshape(25)
        three = matrices["5to3_matrix"] @ five.reshape(5, 5)[1:4, 1:4].reshape(9)
        for size, expected in ((7, weight[..., 0, channel]), (5, five), (3, three)):
            got = elastic.transform_kernel(weight, matrices, KERNELS, size)[..., 0, channel]
            np.testing.assert_allclose(got, expected.reshape(size, size), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_framed_kernel_computes_what_the_small_one_does(stride, index):
    weight, matrices = random_kernel()
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 9, 9, 4), np.float32))
    framed = elastic.elastic_kernel(weight, matrices, KERNELS, jnp.int32(index))
    small = elastic.transform_kernel(weight, matrices, KERNELS, KERNELS[index])
    np.testing.assert_allclose(
        conv.depthwise_conv(x, framed, stride),
        conv.depthwise_conv(x, small, stride),
        rtol=1e-5,
        atol=1e-5,
    )


def test_normalize_zeroes_inactive_channels_and_matches_the_formula():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 3, 6)).astype(np.float32) * 3 + 1
    scale, bias = rng.standard_normal((2, 6)).astype(np.float32)
    mean, variance = elastic.batch_moments(x)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-5)  # biased
    mask = elastic.prefix_mask(jnp.int32(4), 6)
    y = elastic.normalize(x, mean, variance, scale, bias, 1e-5, mask)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * scale + bias
    np.testing.assert_allclose(y[..., :4], expected[..., :4], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(y[..., 4:], 0)  # the bias would leak otherwise
