import itertools

import numpy as np
import pytest

from ofa_jax.config import DataConfig
from ofa_jax.data import pipeline, transforms
from ofa_jax.data.sources import ArraySource, load_dataset

CONFIG = DataConfig(batch_size=32, resolutions=(16, 20))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", 180)


def same(a, b):
    return all(np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


def test_digits_are_the_real_ones_in_disjoint_splits(digits):
    assert [len(digits.split(s)) for s in ("train", "held_out", "test")] == [1257, 180, 360]
    images = [e["image"] for s in ("train", "held_out", "test") for e in digits.split(s)]
    assert images[0].shape == (8, 8, 3)
    assert images[0].dtype == np.uint8
    assert max(i.max() for i in images) == 255
    # 1,797 images; equal ones in two splits would be a leak (the dataset repeats none).
    assert len({i.tobytes() for i in images}) == 1797
    assert {int(e["label"]) for e in digits.test} == set(range(10))
    more = load_dataset("digits", 300)
    assert all(
        np.array_equal(a["image"], b["image"]) for a, b in zip(more.test, digits.test, strict=True)
    )


def test_batches_follow_seed_and_position(digits):
    first = list(itertools.islice(pipeline.train_batches(digits.train, CONFIG, 3), 8))
    again = list(itertools.islice(pipeline.train_batches(digits.train, CONFIG, 3), 8))
    other = list(itertools.islice(pipeline.train_batches(digits.train, CONFIG, 4), 8))
    assert same(first, again)
    assert not np.array_equal(first[0]["label"], other[0]["label"])
    assert {b["image"].shape for b in first} == {(32, 16, 16, 3), (32, 20, 20, 3)}
    assert first[0]["image"].dtype == np.uint8
    assert first[0]["label"].dtype == np.int32


def test_a_restored_iterator_continues_with_the_same_bytes(digits):
    iterator = pipeline.train_batches(digits.train, CONFIG, 0)
    for _ in range(45):  # into the second epoch
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(10)]
    restored = pipeline.train_batches(digits.train, CONFIG, 0)
    restored.set_state(state)
    assert same([next(restored) for _ in range(10)], expected)


def test_an_epoch_sees_every_image_once_in_a_new_order():
    source = ArraySource(np.zeros((64, 8, 8, 3), np.uint8), np.arange(64))
    iterator = pipeline.train_batches(source, CONFIG, 0)
    epochs = [np.concatenate([next(iterator)["label"] for _ in range(2)]) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(64))
    assert not np.array_equal(*epochs)


def test_augmentation_differs_between_epochs():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    source = ArraySource(image.repeat(32, 0), np.zeros(32, int))
    config = DataConfig(batch_size=32, resolutions=(16,))
    iterator = pipeline.train_batches(source, config, 0)
    images = np.concatenate([next(iterator)["image"] for _ in range(4)])
    assert len({i.tobytes() for i in images}) == 25  # every shift of -2..2 by -2..2


def test_calibration_images_are_equal_batches_always_the_same(digits):
    batches = pipeline.calibration_batches(digits.train, CONFIG, 24, 300, 128)
    assert [b.shape for b in batches] == [(100, 24, 24, 3)] * 3
    again = pipeline.calibration_batches(digits.train, CONFIG, 24, 300, 128)
    assert np.array_equal(batches, again)
    everything = pipeline.calibration_batches(digits.train, CONFIG, 16, 2000, 200)
    assert [len(b) for b in everything] == [179] * 7  # 1,253 of the 1,257 there are


def test_evaluation_sees_every_image_once_and_marks_padding(digits):
    batches = list(pipeline.evaluation_batches(digits.test, 16, 100))
    assert [b["image"].shape[0] for b in batches] == [100] * 4
    assert sum(b["weight"].sum() for b in batches) == 360
    labels = np.concatenate([b["label"][b["weight"] == 1] for b in batches])
    np.testing.assert_array_equal(labels, digits.test.labels)


def test_resize_and_normalise():
    image = np.full((8, 8, 3), 51, np.uint8)
    image[:, 4:] = 204
    resized = transforms.resize(image, 16)
    assert resized.shape == (16, 16, 3)
    np.testing.assert_array_equal(resized[0, [0, 15], 0], [51, 204])
    pixels = transforms.normalize_images(resized[None], (0.2, 0.5, 0.5), (0.5, 0.5, 0.25))
    np.testing.assert_allclose(pixels[0, 0, 0], [0, -0.6, -1.2], atol=1e-6)


def test_wrong_data_is_named(digits):
    with pytest.raises(ValueError, match="data.name='digit': expected one of digits"):
        load_dataset("digit", 180)
    with pytest.raises(ValueError, match=r"data.held_out=2000: expected 1 to 1436"):
        load_dataset("digits", 2000)
    with pytest.raises(ValueError, match="data.batch_size=4096: digits has 1257 training images"):
        pipeline.train_batches(digits.train, DataConfig(batch_size=4096), 0)
