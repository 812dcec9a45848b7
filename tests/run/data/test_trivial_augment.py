import collections

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from ofa_jax.run.data.trivial_augment import OPERATIONS, apply, trivial_augment

PHOTO = load_sample_images().images[0][100:164, 200:264]  # 64 x 64


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_strength_changes_nothing(name):
    same = name not in ("AutoContrast", "Equalize")
    assert np.array_equal(apply(name, PHOTO, 0.0), PHOTO) == same


@pytest.mark.parametrize("sign", [1, -1])
def test_moves(sign):
    shifted = apply("TranslateX", PHOTO, 0.25, sign)  # a quarter of 32 pixels
    expected = np.zeros_like(PHOTO)
    if sign > 0:
        expected[:, 8:] = PHOTO[:, :-8]
    else:
        expected[:, :-8] = PHOTO[:, 8:]
    np.testing.assert_array_equal(shifted, expected)
    down = apply("TranslateY", PHOTO.swapaxes(0, 1), 0.25, sign)
    np.testing.assert_array_equal(down, expected.swapaxes(0, 1))
    np.testing.assert_array_equal(apply("Rotate", PHOTO, 2 / 3, sign), np.rot90(PHOTO, sign))
    # Row y is shifted by 0.99 y / 2, by the nearest pixel.
    sheared = apply("ShearX", PHOTO, 0.5, sign)
    for row in (0, 10, 31):
        moved = np.arange(64) - sign * 0.495 * (row + 0.5)
        inside = (moved >= 0) & (moved <= 62)
        source = np.floor(np.arange(64) + 0.5 - sign * 0.495 * (row + 0.5)).astype(int)
        np.testing.assert_array_equal(sheared[row][inside], PHOTO[row][source[inside]])


def test_a_small_image_is_not_shifted_out_of_itself():
    small = PHOTO[:16, :16]
    assert not apply("TranslateX", small, 1.0).any()
    np.testing.assert_array_equal(apply("TranslateX", small, 0.5)[:, 8:], small[:, :8])


def test_colours():
    wide = PHOTO.astype(float)
    np.testing.assert_allclose(apply("Brightness", PHOTO, 1.0, -1), 0.01 * wide, atol=1)
    np.testing.assert_allclose(
        apply("Brightness", PHOTO, 0.5, 1), np.minimum(1.495 * wide, 255), atol=1
    )
    grey = np.asarray(Image.fromarray(PHOTO).convert("L"), float)[..., None]
    np.testing.assert_allclose(apply("Color", PHOTO, 1.0, -1), grey + 0.01 * (wide - grey), atol=1)
    np.testing.assert_array_equal(apply("Posterize", PHOTO, 1.0), PHOTO & 0b11000000)
    np.testing.assert_array_equal(apply("Posterize", PHOTO, 0.5), PHOTO & 0b11111000)
    np.testing.assert_array_equal(apply("Solarize", PHOTO, 1.0), 255 - PHOTO)
    np.testing.assert_array_equal(
        apply("Solarize", PHOTO, 0.6), np.where(PHOTO < 102, PHOTO, 255 - PHOTO)
    )


def test_operations_strengths_and_signs_are_uniform(monkeypatch):
    applied = []
    monkeypatch.setattr(
        "ofa_jax.run.data.trivial_augment.apply",
        lambda name, image, *rest: applied.append((name, *rest)),
    )
    rng = np.random.default_rng(0)
    for _ in range(20_000):
        trivial_augment(PHOTO, rng)
    names, shares, signs = zip(*applied, strict=True)
    for values, kinds in ((names, 14), (np.round(np.array(shares) * 30), 31), (signs, 2)):
        counts = np.array(list(collections.Counter(values).values()))
        assert len(counts) == kinds
        np.testing.assert_allclose(counts / 20_000, 1 / kinds, rtol=0.15)
