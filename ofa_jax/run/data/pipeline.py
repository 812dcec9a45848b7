"""The Grain pipeline: batches that depend on seed and position alone."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator

import grain
import numpy as np
from absl import flags

from ofa_jax.errors import InputError
from ofa_jax.run.data.examples import EvaluationExample, Reader, TrainingExample
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.groups.data import DataConfig

Batch = dict[str, np.ndarray]

GRACE = 60.0  # seconds that a worker has left after SIGTERM, for the steps until its run stops


def train_batches(
    dataset: Dataset,
    config: DataConfig,
    seed: int,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Generator[Batch]:
    """Endless training batches: shuffled again each epoch, augmented, one resolution a batch.

    A batch follows from the seed and its number alone, not from workers or processes, so a run
    that has done n steps continues with `start` = n. Close the generator to stop its workers.

    Args:
      dataset: its training images are taken.
      config: what to do with them, and by how many workers.
      seed: of order, resolutions and augmentation.
      start: the number of the first batch.
      shard: (index, count) of this process: it gets its own part of each batch, in order.

    Returns:
      A generator of {"image": `[b, r, r, 3]` uint8, "label": `[b]` int32, "skipped": `[b]` int32},
      with b the batch size over count, and in "skipped" how many corrupt images were skipped.

    Raises:
      ValueError: a batch larger than the split; while iterating, a corrupt image or a label that
        is no class.
    """
    batches = _training(dataset, config, seed, config.batch_size, config.resolutions, shard)
    return _iterate(batches[start:], config)


def calibration_batches(
    dataset: Dataset,
    config: DataConfig,
    resolution: int,
    images: int,
    batch_size: int,
    devices: int = 1,
    shard: tuple[int, int] = (0, 1),
) -> list[np.ndarray]:
    """Training images for calibration, augmented as in training, always the same ones.

    At most `images` of them, or as many as there are, in equal batches of at most `batch_size` that
    divide by the devices. Gives this process's part of each batch,
    `[size / processes, resolution, resolution, 3]`.
    """
    images = min(images, len(dataset.train))
    count = -(-images // batch_size)
    size = max(images // count // devices, 1) * devices
    batches = _training(dataset, config, 0, size, (resolution,), shard)
    with contextlib.closing(_iterate(batches[:count], config)) as iterator:
        return [np.array(batch["image"]) for batch in iterator]


def evaluation_batches(
    dataset: Dataset,
    split: str,
    config: DataConfig,
    resolution: int,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every image once, in order; "weight" 0 marks padding and skipped corrupt images.

    Every process gets its part of each batch, and as many as the others.
    """
    source = dataset.split(split)
    load = EvaluationExample(Reader(source, len(dataset.class_names)), config, resolution)
    padded = -(-len(source) // batch_size) * batch_size
    batches = _parts(grain.MapDataset.range(padded).map(load), batch_size, shard)
    with contextlib.closing(_iterate(batches, config)) as iterator:
        yield from iterator


def _training(
    dataset: Dataset,
    config: DataConfig,
    seed: int,
    batch_size: int,
    resolutions: tuple[int, ...],
    shard: tuple[int, int],
) -> grain.MapDataset:
    source = dataset.train
    if batch_size > len(source):
        raise InputError(
            f"data.batch_size={batch_size}: {dataset.name} has {len(source)} training images"
        )
    load = TrainingExample(
        Reader(source, len(dataset.class_names)), config, seed, batch_size, resolutions
    )
    images = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat()
        .map_with_index(lambda position, image: (position, image))
        .random_map(load)
    )
    return _parts(images, batch_size, shard)


def _parts(images: grain.MapDataset, batch_size: int, shard: tuple[int, int]) -> grain.MapDataset:
    """One process's parts of the batches: which images those have is the same for any number."""
    index, count = shard
    return images.batch(batch_size // count, drop_remainder=True).slice(slice(index, None, count))


def _iterate(batches: grain.MapDataset, config: DataConfig) -> Generator[Batch]:
    threads = grain.ReadOptions(
        num_threads=config.threads, prefetch_buffer_size=max(config.prefetch, config.threads)
    )
    dataset = batches.to_iter_dataset(threads)
    if config.workers:
        dataset = _in_workers(dataset, config)
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()
        # Workers' batches lie in shared memory until they are collected: not left to Python's end.
        del iterator
        gc.collect()


def _in_workers(dataset: grain.IterDataset, config: DataConfig) -> grain.IterDataset:
    if not flags.FLAGS.is_parsed():  # Grain's workers look at flags; notebooks parse none
        flags.FLAGS.mark_as_parsed()
    # Stopped workers leave a few arrays to Python's resource tracker, a process of its own, which
    # frees them and would say so at every end of a run (google/grain#398).
    quiet, filters = "ignore:resource_tracker", os.environ.get("PYTHONWARNINGS", "")
    if quiet not in filters:
        os.environ["PYTHONWARNINGS"] = f"{filters},{quiet}".lstrip(",")
    return dataset.mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=config.workers, per_worker_buffer_size=config.prefetch
        ),
        begin_worker,
    )


def begin_worker(_: int, __: int) -> None:
    """Has a worker process leave signals to its run, and end when that does, however it ends.

    Grain's own would print a traceback each, and wait forever where the run was killed. SIGTERM
    and SIGHUP reach workers where a whole job gets them, as from SLURM: a run of several processes
    takes a few steps more until all of them save together, for which it needs batches.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_later)
    threading.Thread(target=_follow, daemon=True).start()


def _end_later(_: int, __: object) -> None:
    last = threading.Timer(GRACE, os._exit, (1,))
    last.daemon = True
    last.start()


def _follow() -> None:
    run = multiprocessing.parent_process()
    assert run is not None
    run.join()
    os._exit(1)
