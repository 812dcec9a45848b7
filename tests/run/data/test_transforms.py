"""Transforms against their definitions: torchvision's, as Pillow computes them."""

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats
from sklearn.datasets import load_sample_images

from ofa_jax.normalization import normalize_images
from ofa_jax.run.data import transforms
from ofa_jax.run.groups.data import AugmentConfig

PHOTO = load_sample_images().images[0]  # 427 x 640
CROPS = 10_000
REFERENCE = AugmentConfig(crop="resized", flip=0.5, brightness=32 / 255, saturation=0.5)


def boxes_by_rejection(count, rng):
    """(share of the area, log of width over height) of boxes that fit a unit square."""
    share, log = rng.uniform(0.08, 1, count), rng.uniform(*np.log([3 / 4, 4 / 3]), count)
    fits = share * np.exp(np.abs(log)) <= 1
    return share[fits], log[fits]


def test_crops_and_flips_of_ten_thousand_images():
    # Every pixel says where it is, so a crop tells its box.
    rows, columns = np.meshgrid(range(256), range(256), indexing="ij")
    places = np.stack([columns, rows, rows], axis=-1).astype(np.uint8)
    config = AugmentConfig(crop="resized", flip=0.5)
    rng = np.random.default_rng(0)
    crops = np.stack([transforms.augment(places, 32, config, rng) for _ in range(CROPS)])
    assert crops.shape == (CROPS, 32, 32, 3)
    first, last = (crops[:, i, i, :2].astype(float) for i in (0, -1))
    width, height = (last - first).T * 32 / 31  # centres of the outer pixels lie 31/32 apart
    flipped = width < 0
    assert flipped.mean() == pytest.approx(0.5, abs=0.02)
    width = np.abs(width)
    share, log = boxes_by_rejection(50 * CROPS, rng)
    assert (width * height / 256**2).mean() == pytest.approx(share.mean(), abs=0.01)
    assert np.log(width / height).mean() == pytest.approx(0, abs=0.01)
    assert stats.ks_2samp(width * height / 256**2, share).statistic < 0.03
    assert stats.ks_2samp(np.log(width / height), log).statistic < 0.03


@pytest.mark.parametrize("turn", [False, True])
def test_a_strip_takes_no_more_memory_than_its_centre(turn):
    strip = np.random.default_rng(0).integers(0, 256, (4, 1000, 3), np.uint8)
    size, kept = (2000, 8), np.s_[:, 996:1004]
    if turn:
        strip, size, kept = strip.transpose(1, 0, 2), size[::-1], kept[::-1]
    whole = Image.fromarray(strip).resize(size, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        transforms.resize_and_crop(strip, 8, 1.0), np.asarray(whole)[kept]
    )
    line = np.zeros((1, 65_500, 3), np.uint8)  # 224 times as wide, ten gigabytes
    assert transforms.resize_and_crop(line, 224, 0.875).shape == (224, 224, 3)


def test_boxes_are_uniform_where_all_fit():
    rng = np.random.default_rng(1)
    area, aspect = (0.08, 0.5), (3 / 4, 4 / 3)
    boxes = [transforms.random_box(5000, 5000, area, aspect, rng) for _ in range(CROPS)]
    top, left, height, width = np.array(boxes).T
    log = np.log(3 / 4)
    for values, low, high in (
        (height * width / 5000**2, *area),
        (np.log(width / height), log, -log),
        (top / (5000 - height), 0, 1),
        (left / (5000 - width), 0, 1),
    ):
        assert stats.kstest((values - low) / (high - low), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10)])
def test_a_box_that_never_fits_becomes_the_largest_central_one(height, width):
    box = transforms.random_box(height, width, (1, 1), (3 / 4, 4 / 3), np.random.default_rng(0))
    assert box == ((0, 493, 10, 13) if width > height else (493, 0, 13, 10))


def test_jitter_is_brightness_and_saturation_of_pillow():
    image = (PHOTO // 2 + 20)[:64, :64]  # so that nothing is clipped
    for seed in range(20):
        found = transforms.jitter(image, 32 / 255, 0.5, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        bright, colour = rng.uniform(1 - 32 / 255, 1 + 32 / 255), rng.uniform(0.5, 1.5)
        expected = ImageEnhance.Brightness(Image.fromarray(image)).enhance(bright)
        expected = np.asarray(ImageEnhance.Color(expected).enhance(colour))
        # Pillow cuts decimals off, three times.
        assert (found - expected.astype(float)).min() >= -1
        assert (found - expected.astype(float)).max() <= 3


def test_jitter_factors_are_uniform():
    gray, red = np.full((1, 1, 3), 128, np.uint8), np.array([[[200, 100, 100]]], np.uint8)
    rng = np.random.default_rng(0)
    bright = [transforms.jitter(gray, 32 / 255, 0.5, rng)[0, 0, 0] / 128 for _ in range(CROPS)]
    uniform = (np.array(bright) - 1) / (32 / 255) / 2 + 0.5
    assert stats.kstest(uniform, "uniform").statistic < 0.03  # steps of 1 / 32: bytes
    pixels = np.array([transforms.jitter(red, 0, 0.5, rng)[0, 0] for _ in range(CROPS)], float)
    assert stats.kstest((pixels[:, 0] - pixels[:, 1]) / 100 - 0.5, "uniform").statistic < 0.03


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (300, 300), (90, 133), (225, 224)])
@pytest.mark.parametrize("size", [128, 160, 224])
def test_evaluation_equals_the_reference_pixel_for_pixel(shape, size):
    image = np.ascontiguousarray(np.resize(PHOTO, (*shape, 3)))
    # torchvision's Resize(ceil(size / 0.875)) and CenterCrop(size), spelled out.
    height, width = shape
    short = math.ceil(size / 0.875)
    if width <= height:
        new = (short, int(short * height / width))
    else:
        new = (int(short * width / height), short)
    resized = Image.fromarray(image).resize(new, Image.BILINEAR)
    left = round((resized.width - size) / 2.0)
    top = round((resized.height - size) / 2.0)
    expected = np.asarray(resized.crop((left, top, left + size, top + size)))
    np.testing.assert_array_equal(transforms.resize_and_crop(image, size, 0.875), expected)


def test_shifts_of_small_images():
    image = np.random.default_rng(0).integers(1, 256, (16, 16, 3), np.uint8)
    config, rng = AugmentConfig(crop="pad", pad=0.125), np.random.default_rng(0)
    shifted = [transforms.augment(image, 16, config, rng) for _ in range(500)]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    every = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    assert {s.tobytes() for s in shifted} == every


def test_the_middle_of_an_image_that_is_not_square():
    np.testing.assert_array_equal(transforms.center_square(PHOTO), PHOTO[:, 106:533])
    config = AugmentConfig(crop="pad", pad=0.0)
    image = transforms.augment(PHOTO, 427, config, np.random.default_rng(0))
    np.testing.assert_array_equal(image, PHOTO[:, 106:533])


def test_resize():
    image = np.full((8, 8, 3), 51, np.uint8)
    image[:, 4:] = 204
    larger = transforms.resize(image, 16)
    assert larger.shape == (16, 16, 3)
    np.testing.assert_array_equal(larger[0, [0, 15], 0], [51, 204])
    stripes = np.tile(np.array([0, 200], np.uint8)[None, :, None], (8, 4, 3))
    # A triangle as wide as twice what one pixel covers: no pixel is left out.
    np.testing.assert_array_equal(transforms.resize(stripes, 2)[0, :, 0], [93, 107])


@pytest.mark.parametrize("crop", ["pad", "resized"])
@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (96, 64), (8, 8), (427, 640)])
@pytest.mark.parametrize("size", [16, 24, 128])
def test_training_and_evaluation_resize_alike(crop, shape, size):
    """Another filter cost a network up to nine points: what it had learnt looked otherwise."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    if crop == "resized":  # of a whole image the crop is its square
        image = transforms.center_square(image)
    config = AugmentConfig(crop=crop, pad=0.0, area=(1.0, 1.0), aspect=(1.0, 1.0))
    trained = transforms.augment(image, size, config, np.random.default_rng(0))
    square = Image.fromarray(transforms.center_square(image))
    expected = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(trained, expected, atol=int(min(shape) <= size))
    if shape[0] == shape[1] or crop == "resized":
        np.testing.assert_array_equal(transforms.resize_and_crop(image, size, 1.0), expected)


def test_normalise():
    image = np.full((1, 4, 4, 3), 51, np.uint8)
    pixels = normalize_images(image, (0.2, 0.5, 0.5), (0.5, 0.5, 0.25))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, 0, 0], [0, -0.6, -1.2], atol=1e-6)


def test_erasing_leaves_noise_in_one_box():
    flat = np.full((60, 80, 3), 7, np.uint8)
    rng, shares = np.random.default_rng(0), []
    for _ in range(300):
        erased = (transforms.erase(flat, rng) != 7).any(-1)
        rows, columns = erased.any(1).nonzero()[0], erased.any(0).nonzero()[0]
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        shares.append(height * width / flat[..., 0].size)
        assert erased.sum() > 0.9 * height * width
    assert (flat == 7).all()
    assert 0.015 < min(shares) < 0.05 < 0.28 < max(shares) < 0.35


def test_augmentations_follow_the_config():
    rng = np.random.default_rng(0)
    plain = AugmentConfig(pad=0.0)
    image = PHOTO[:64, :64]
    assert np.array_equal(transforms.augment(image, 64, plain, rng), image)
    for fields in ({"policy": "trivial"}, {"erase": 0.5}):
        config = AugmentConfig(pad=0.0, **fields)
        changed = [
            not np.array_equal(transforms.augment(image, 64, config, rng), image)
            for _ in range(400)
        ]
        # TrivialAugment leaves it where it samples no operation, or one without strength.
        share = 0.5 if "erase" in fields else 1 - (1 + 11 / 31) / 14
        assert np.mean(changed) == pytest.approx(share, abs=0.07)
