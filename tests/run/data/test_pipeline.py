"""Batches follow from seed and number: not from where a run stopped, workers or processes."""

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from main_runs import REPOSITORY, SAFETY

from ofa_jax.run.data import pipeline
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.examples import draw_resolution
from ofa_jax.run.data.sources import ArraySource, Dataset
from ofa_jax.run.data.transforms import resize_and_crop
from ofa_jax.run.groups.data import AugmentConfig, DataConfig

AUGMENT = AugmentConfig(crop="resized", flip=0.5, brightness=0.1, saturation=0.5)
CONFIG = DataConfig(batch_size=32, resolutions=(16, 20), augment=AUGMENT)
PLAIN = AugmentConfig(crop="pad", pad=0.0)


def with_fields(**fields):
    return DataConfig(**{**vars(CONFIG), **fields})


def dataset(images, labels, classes=10):
    source = ArraySource(images, labels, "toy")
    names = tuple(str(c) for c in range(classes))
    return Dataset("toy", source, source, source, names, images.shape[1:])


@pytest.fixture(scope="module")
def digits():
    return load_dataset(CONFIG)


def take(data, config, count, **options):
    with contextlib.closing(pipeline.train_batches(data, config, 3, **options)) as batches:
        return [{k: np.array(v) for k, v in b.items()} for b in itertools.islice(batches, count)]


def same(a, b):
    return all(np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


@pytest.fixture(scope="module")
def first(digits):
    """The first 80 batches, two epochs, as one process without workers makes them."""
    return take(digits, CONFIG, 80)


def test_batches_follow_the_seed(digits, first):
    with contextlib.closing(pipeline.train_batches(digits, CONFIG, 4)) as other:
        assert not np.array_equal(first[0]["label"], next(other)["label"])
    assert {b["image"].shape for b in first} == {(32, 16, 16, 3), (32, 20, 20, 3)}
    assert [first[0][k].dtype for k in ("image", "label", "skipped")] == [
        np.uint8,
        np.int32,
        np.int32,
    ]
    assert same(take(digits, with_fields(threads=4, prefetch=1), 5), first[:5])


@pytest.mark.parametrize("stopped", [1, 7, 38, 39, 60])  # an epoch has 39 batches
@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_after_any_batch_the_next_twenty_are_the_same(digits, first, stopped, processes):
    expected = first[stopped : stopped + 20]
    for index in range(processes):
        found = take(digits, CONFIG, 20, start=stopped, shard=(index, processes))
        rows = slice(index * 32 // processes, (index + 1) * 32 // processes)
        assert same(found, [{k: v[rows] for k, v in b.items()} for b in expected])


@pytest.mark.parametrize(("stopped", "processes"), [(7, 1), (39, 2)])
def test_the_same_with_two_workers(digits, first, stopped, processes):
    expected = first[stopped : stopped + 20]
    for index in range(processes):
        config = with_fields(workers=2)
        found = take(digits, config, 20, start=stopped, shard=(index, processes))
        rows = slice(index * 32 // processes, (index + 1) * 32 // processes)
        assert same(found, [{k: v[rows] for k, v in b.items()} for b in expected])


def test_workers_go_on_after_sigterm(digits, first):
    config = with_fields(workers=2, prefetch=1)
    with contextlib.closing(pipeline.train_batches(digits, config, 3)) as batches:
        found = [next(batches), next(batches)]
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        found += itertools.islice(batches, 18)
        assert same(first[:20], found)
    assert not any(worker.is_alive() for worker in workers)


def test_an_epoch_sees_every_image_once_in_a_new_order():
    data = dataset(np.zeros((64, 8, 8, 3), np.uint8), np.arange(64), classes=64)
    batches = take(data, CONFIG, 4)
    epochs = [np.concatenate([b["label"] for b in half]) for half in (batches[:2], batches[2:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(64))
    assert not np.array_equal(*epochs)


def test_every_image_gets_its_own_augmentation():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    data = dataset(image.repeat(64, 0), np.zeros(64, int))
    images = np.concatenate([b["image"] for b in take(data, with_fields(resolutions=(16,)), 6)])
    assert len({i.tobytes() for i in images}) == 6 * 32


def test_resolutions_are_sampled_evenly_the_same_on_every_process(digits):
    sizes = tuple(range(128, 225, 4))
    sampled = [draw_resolution(3, batch, sizes) for batch in range(5000)]
    counts = [sampled.count(size) for size in sizes]
    assert len(counts) == 25
    assert min(counts) > 140  # 200 each, give or take 14
    assert max(counts) < 260
    config = with_fields(resolutions=(8, 12, 16, 20))
    for index in range(2):
        found = [b["image"].shape[1] for b in take(digits, config, 10, shard=(index, 2))]
        assert found == [draw_resolution(3, n, config.resolutions) for n in range(10)]


def test_calibration_images_are_always_the_same(digits):
    take = functools.partial(pipeline.calibration_batches, digits, CONFIG, 24, 300)
    batches = take(100)
    assert [b.shape for b in batches] == [(100, 24, 24, 3)] * 3
    assert np.array_equal(batches, take(100))
    assert np.array_equal(batches, np.concatenate([take(100, shard=(i, 2)) for i in (0, 1)], 1))


def test_calibration_takes_equal_batches_of_what_there_is(digits):
    def sizes(images, batch_size, devices=1):
        batches = pipeline.calibration_batches(digits, CONFIG, 8, images, batch_size, devices)
        return [len(batch) for batch in batches]

    there = len(digits.train)
    assert sizes(300, 1000) == [300]
    assert sizes(300, 140) == [100, 100, 100]
    assert sizes(10**6, 10**6) == [there]
    assert sizes(300, 300, 8) == [296]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_and_marks_padding(digits, workers):
    config = with_fields(workers=workers)
    batches = list(pipeline.evaluation_batches(digits, "test", config, 16, 100))
    assert [b["image"].shape[0] for b in batches] == [100] * 4
    seen = np.concatenate([b["weight"] for b in batches]) == 1
    assert seen.sum() == 360
    for index in (0, 123, 359):
        example = digits.test[index]
        assert batches[index // 100]["label"][index % 100] == example["label"]
        image = resize_and_crop(example["image"].repeat(3, -1), 16, 1.0)
        np.testing.assert_array_equal(batches[index // 100]["image"][index % 100], image)


def test_every_process_evaluates_its_part_of_as_many_batches(digits):
    whole = list(pipeline.evaluation_batches(digits, "test", CONFIG, 16, 100))
    for index in range(4):
        parts = pipeline.evaluation_batches(digits, "test", CONFIG, 16, 100, (index, 4))
        rows = slice(index * 25, index * 25 + 25)
        assert same(list(parts), [{k: v[rows] for k, v in batch.items()} for batch in whole])


class Damaged(ArraySource):
    """Some images cannot be decoded."""

    def __getitem__(self, index, /):
        example = super().__getitem__(index)
        return {**example, "image": b"\xff\xd8 no image"} if index in (5, 6, 40) else example


@pytest.fixture(scope="module")
def damaged():
    images = np.arange(64, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    source = Damaged(images, np.arange(64), "toy")
    return Dataset("toy", source, source, source, tuple(map(str, range(64))), (8, 8, 3))


def test_a_corrupt_image_stops_the_run_and_is_named(damaged):
    with pytest.raises(ValueError, match=r"corrupt image toy\[(5|6|40)\]: .*data.corrupt='skip'"):
        take(damaged, CONFIG, 2)
    with pytest.raises(ValueError, match=r"corrupt image toy\[5\]"):
        list(pipeline.evaluation_batches(damaged, "test", CONFIG, 8, 64))
    with pytest.raises(ValueError, match=r"corrupt image toy\[(5|6|40)\]"):
        take(damaged, with_fields(workers=2), 2)


def test_corrupt_images_are_skipped_and_counted(damaged, capfd):
    config = with_fields(corrupt="skip", augment=PLAIN, threads=1)
    epoch = take(damaged, config, 2)
    labels = np.concatenate([b["label"] for b in epoch])
    # The next one stands in: 7 for 5 and 6, 41 for 40.
    expected = [*({*range(64)} - {5, 6, 40}), 7, 7, 41]
    assert sorted(labels) == sorted(expected)
    assert sum(b["skipped"].sum() for b in epoch) == 2 + 1 + 1
    printed = capfd.readouterr().err
    assert all(printed.count(f"corrupt image toy[{i}]") == 1 for i in (5, 6, 40))
    (batch,) = pipeline.evaluation_batches(damaged, "test", config, 8, 64)
    assert list(np.flatnonzero(batch["weight"] == 0)) == [5, 6, 40]


def test_nothing_but_corrupt_images_is_reported():
    data = dataset(np.zeros((200, 8, 8, 5), np.uint8), np.zeros(200, int))
    with pytest.raises(ValueError, match="100 corrupt images in a row"):
        take(data, with_fields(corrupt="skip"), 1)


def test_wrong_data_is_named(digits):
    with pytest.raises(ValueError, match="data.batch_size=4096: digits has 1257 training images"):
        pipeline.train_batches(digits, with_fields(batch_size=4096), 0)
    data = dataset(np.zeros((64, 8, 8, 3), np.uint8), np.full(64, 10))
    with pytest.raises(ValueError, match=r"toy\[\d+\]: label 10 is outside the 10 classes"):
        take(data, CONFIG, 1)


RUN = """
import multiprocessing, os, signal, threading
from ofa_jax.run.data.pipeline import begin_worker

def work():
    begin_worker(0, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)  # as a terminal, or SLURM, sends it to all
    print("works", flush=True)
    threading.Event().wait()

multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
threading.Event().wait()
"""


def test_a_worker_ends_with_its_run_and_not_by_a_signal_to_all():
    command = [sys.executable, "-W", "ignore", "-c", RUN]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert run.stdout.readline() == "works\n"
    run.kill()
    assert run.communicate(timeout=SAFETY)[0] == ""  # nobody holds the other end any more
