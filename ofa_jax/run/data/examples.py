"""One image at a time: read, decoded, checked and augmented."""

import functools
import sys
from typing import Any

import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.files import short
from ofa_jax.run.data.decode import decode
from ofa_jax.run.data.sources import Source
from ofa_jax.run.data.transforms import augment, resize_and_crop
from ofa_jax.run.groups.data import DataConfig

Example = dict[str, Any]
HINT = "; data.corrupt='skip' skips such images and counts them"
CORRUPT_IN_A_ROW = 100  # after so many, it is not the images


class CorruptImage(InputError):
    """An image that cannot be decoded."""


class Reader:
    """Reads, decodes and checks the examples of a source with labels below `classes`."""

    def __init__(self, source: Source, classes: int):
        self.source, self.classes = source, classes
        self.reported: set[int] = set()

    def __len__(self) -> int:
        return len(self.source)

    def __call__(self, index: int) -> tuple[np.ndarray, int]:
        """(pixels `[height, width, 3]` uint8, label)."""
        example = self.source[index]
        if not 0 <= example["label"] < self.classes:
            raise InputError(
                f"{self.source.where(index)}: label {example['label']} is outside the"
                f" {self.classes} classes"
            )
        try:
            return decode(example["image"]), example["label"]
        except InputError as error:
            message = f"corrupt image {self.source.where(index)}: {short(error)}"
            raise CorruptImage(message + HINT) from error

    def report(self, index: int, error: CorruptImage) -> None:
        """Says once that an image is skipped."""
        if index not in self.reported:
            self.reported.add(index)
            sys.stderr.write(f"{str(error).removesuffix(HINT)}: skipped\n")


class TrainingExample:
    """(position in the run, image's index) to an augmented example."""

    def __init__(
        self,
        read: Reader,
        config: DataConfig,
        seed: int,
        batch_size: int,
        resolutions: tuple[int, ...],
    ):
        self.read, self.config = read, config
        self.seed, self.batch_size, self.resolutions = seed, batch_size, resolutions

    def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> Example:
        position, index = place
        image, label, skipped = self.readable(index)
        resolution = draw_resolution(self.seed, position // self.batch_size, self.resolutions)
        pixels = augment(image, resolution, self.config.augment, rng)
        return {"image": pixels, "label": np.int32(label), "skipped": np.int32(skipped)}

    def readable(self, index: int) -> tuple[np.ndarray, int, int]:
        """Image, label and how many corrupt images stood before it."""
        for skipped in range(CORRUPT_IN_A_ROW):
            try:
                return *self.read(index), skipped
            except CorruptImage as error:
                if self.config.corrupt == "stop":
                    raise
                self.read.report(index, error)
                index = (index + 1) % len(self.read)
        raise InputError(f"{CORRUPT_IN_A_ROW} corrupt images in a row")


@functools.lru_cache(maxsize=64)
def draw_resolution(seed: int, batch: int, resolutions: tuple[int, ...]) -> int:
    """The resolution of a batch, by its number: the same on every process."""
    return int(np.random.default_rng((seed, batch)).choice(resolutions))


class EvaluationExample:
    """An image's index to an example; one beyond the last, or that cannot be read, has weight 0."""

    def __init__(self, read: Reader, config: DataConfig, resolution: int):
        self.read, self.config, self.resolution = read, config, resolution

    def __call__(self, index: int) -> Example:
        if index >= len(self.read):
            return self.blank()
        try:
            image, label = self.read(index)
        except CorruptImage as error:
            if self.config.corrupt == "stop":
                raise
            self.read.report(index, error)
            return self.blank()
        pixels = resize_and_crop(image, self.resolution, self.config.center_crop)
        return {"image": pixels, "label": np.int32(label), "weight": np.float32(1)}

    def blank(self) -> Example:
        """What fills a batch and counts for nothing."""
        pixels = np.zeros((self.resolution, self.resolution, 3), np.uint8)
        return {"image": pixels, "label": np.int32(0), "weight": np.float32(0)}
