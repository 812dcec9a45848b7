"""Where images come from: a source is indexed and gives {"image": uint8 HWC, "label": int}."""

import dataclasses
from typing import Any, Protocol

import numpy as np
from sklearn.datasets import load_digits

SPLIT_SEED = 0  # splits are part of the dataset: they never follow the run's seed
DIGITS_TEST_IMAGES = 360


class Source(Protocol):
    """Random access to examples {"image": `[height, width, 3]` uint8, "label": int32}."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class ArraySource:
    """Images `[n, height, width, 3]` uint8 and labels `[n]` in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"image": self.images[index], "label": np.int32(self.labels[index])}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three disjoint splits and the names of the classes."""

    train: Source
    held_out: Source
    test: Source
    class_names: tuple[str, ...]

    def split(self, name: str) -> Source:
        """One of "train", "held_out" and "test"."""
        return {"train": self.train, "held_out": self.held_out, "test": self.test}[name]


def digits(held_out: int) -> Dataset:
    """Scikit-learn's handwritten digits: 1,797 real 8x8 images that ship inside that package.

    360 of them, always the same, are the test split; `held_out` of the rest are kept back.

    Raises:
      ValueError: more images held out than there are.
    """
    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8).repeat(3, axis=-1)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    rest = len(labels) - DIGITS_TEST_IMAGES
    if not 0 < held_out < rest:
        raise ValueError(f"data.held_out={held_out}: expected 1 to {rest - 1} for digits")
    test, held, train = np.split(order, [DIGITS_TEST_IMAGES, DIGITS_TEST_IMAGES + held_out])
    splits = [ArraySource(images[part], labels[part]) for part in (train, held, test)]
    return Dataset(splits[0], splits[1], splits[2], tuple(str(d) for d in range(10)))


SOURCES = {"digits": digits}


def load_dataset(name: str, held_out: int) -> Dataset:
    """The dataset of that name with `held_out` training images kept back.

    Raises:
      ValueError: an unknown name.
    """
    if name not in SOURCES:
        raise ValueError(f"data.name={name!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[name](held_out)
