import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ofa_jax.train.mix import mix

# Each image has its own value everywhere, so that a pixel tells its image.
IMAGES = jnp.broadcast_to(jnp.arange(1.0, 5.0)[:, None, None, None], (4, 10, 20, 3))
LABELS = jax.nn.one_hot(jnp.arange(4), 4)
KEYS = jax.random.split(jax.random.key(0), 2000)


def batches(mixup, cutmix):
    mixed = jax.jit(jax.vmap(lambda key: mix(key, IMAGES, LABELS, mixup, cutmix)))(KEYS)
    return jax.tree.map(np.asarray, mixed)


def test_without_either_nothing_changes():
    images, labels = mix(jax.random.key(0), IMAGES, LABELS, 0.0, 0.0)
    assert images is IMAGES
    assert labels is LABELS


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_mixes_images_as_it_mixes_labels(alpha):
    images, labels = batches(alpha, 0.0)
    kept = labels[:, 0, 0]
    expected = kept[:, None] * np.arange(1.0, 5.0) + (1 - kept)[:, None] * np.arange(4.0, 0, -1)
    np.testing.assert_allclose(
        images, np.broadcast_to(expected[..., None, None, None], images.shape), rtol=1e-5
    )
    np.testing.assert_allclose(labels[:, 0, 3], 1 - kept, atol=1e-6)
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1)).
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_cutmix_takes_a_box_and_its_area_of_the_label():
    images, labels = batches(0.0, 1.0)
    own = (images == np.asarray(IMAGES)).all(-1)
    partner = (images == np.asarray(IMAGES[::-1])).all(-1)
    assert (own ^ partner).all()  # every pixel is one's or the other's
    np.testing.assert_allclose(own.mean((2, 3)), labels[:, 0, 0][:, None].repeat(4, 1), atol=1e-6)
    # One box: its rows and columns are the whole of it.
    rows, columns = partner[:, 0].any(2), partner[:, 0].any(1)
    np.testing.assert_array_equal(partner[:, 0], rows[:, :, None] & columns[:, None, :])
    # Uniform shares; boxes cut at the edges are smaller.
    assert 0.5 < labels[:, 0, 0].mean() < 0.75


def test_both_take_turns():
    images, _ = batches(0.4, 1.0)
    mixed = (images != np.round(images)).any((1, 2, 3, 4))
    assert mixed.mean() == pytest.approx(0.5, abs=0.05)
