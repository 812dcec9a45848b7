"""The Grain pipeline: batches that depend on seed and position alone, and can be resumed."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from ofa_jax.config import DataConfig
from ofa_jax.data import transforms
from ofa_jax.data.sources import Source

Batch = dict[str, np.ndarray]


def train_batches(source: Source, config: DataConfig, seed: int) -> grain.DatasetIterator:
    """Endless training batches: shuffled anew each epoch, augmented, one resolution a batch.

    Gives {"image": `[batch, r, r, 3]` uint8, "label": `[batch]` int32}; the iterator's state is
    saved and restored with the model's.

    Raises:
      ValueError: a batch larger than the split.
    """
    return iter(_train_dataset(source, config, seed, config.batch_size, config.resolutions))


def calibration_batches(
    source: Source,
    config: DataConfig,
    resolution: int,
    images: int,
    batch_size: int,
) -> list[np.ndarray]:
    """Images for batch-norm calibration: training augmentation, one resolution, always the same.

    Gives at most `images` images (as many as there are) in equal batches of at most `batch_size`.
    """
    images = min(images, len(source))
    batches = -(-images // batch_size)
    size = images // batches
    dataset = _train_dataset(source, config, seed=0, batch_size=size, resolutions=(resolution,))
    return [batch["image"] for batch in itertools.islice(dataset, batches)]


def evaluation_batches(source: Source, resolution: int, batch_size: int) -> Iterator[Batch]:
    """Every image once, in order; the last batch is padded, "weight" 0 marks the padding."""
    for start in range(0, len(source), batch_size):
        examples = [source[i] for i in range(start, min(start + batch_size, len(source)))]
        images = np.stack([transforms.resize(e["image"], resolution) for e in examples])
        padding = batch_size - len(examples)
        yield {
            "image": np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0))),
            "label": np.pad(np.asarray([e["label"] for e in examples], np.int32), (0, padding)),
            "weight": np.pad(np.ones(len(examples), np.float32), (0, padding)),
        }


def _train_dataset(
    source: Source,
    config: DataConfig,
    seed: int,
    batch_size: int,
    resolutions: tuple[int, ...],
) -> grain.IterDataset:
    if batch_size > len(source):
        raise ValueError(
            f"data.batch_size={batch_size}: {config.name} has {len(source)} training images"
        )

    def with_resolution(index: int, example: dict[str, Any]) -> dict[str, Any]:
        # One resolution a batch, by the batch's number: the same on every process.
        rng = np.random.default_rng((seed, index // batch_size))
        return {**example, "resolution": int(rng.choice(resolutions))}

    return (
        grain.MapDataset.source(source)
        .seed(seed)
        .shuffle()
        .repeat()
        .map_with_index(with_resolution)
        .random_map(functools.partial(_augment, shift=config.shift))
        .batch(batch_size, drop_remainder=True)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
    )


def _augment(example: dict[str, Any], rng: np.random.Generator, shift: float) -> dict[str, Any]:
    image = transforms.resize(example["image"], example["resolution"])
    return {"image": transforms.random_shift(image, shift, rng), "label": example["label"]}
