"""What a dataset is made of: sources of examples, and its splits."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

USUAL_SPLITS = ("test", "validation", "val", "valid")  # in the order that tests prefer


class Source(Protocol):
    """Random access to examples {"image": encoded bytes or uint8 pixels, "label": int}."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...

    def where(self, index: int, /) -> str:
        """Index and file of an example, for people."""
        ...

    def identity(self) -> str:
        """What identifies these examples, wherever they are stored."""
        ...


class ArraySource:
    """Images `[n, height, width, channels]` uint8 and labels `[n]` in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, name: str = "array"):
        self.images, self.labels, self.name = images, labels, name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}

    def where(self, index: int, /) -> str:
        return f"{self.name}[{index}]"

    def identity(self) -> str:
        return _sha256(self.images.tobytes() + self.labels.tobytes())


class Subset:
    """Some examples of a source, by their indices."""

    def __init__(self, source: Source, indices: np.ndarray):
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return self.source[int(self.indices[index])]

    def where(self, index: int, /) -> str:
        return self.source.where(int(self.indices[index]))

    def identity(self) -> str:
        return _sha256(self.source.identity().encode() + self.indices.astype(np.int64).tobytes())


@dataclasses.dataclass(frozen=True)
class Collection:
    """What a dataset offers: its splits, by name, and `open(split)`.

    `image_shape` is (height, width, channels), None where images differ; `left_out` has, of each
    split that is open, how many files are not used, by kind; `overlap(split, other)` is whether
    two have images in common.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, ...]
    splits: tuple[str, ...]
    open: Callable[[str], Source]
    left_out: Mapping[str, Counter[str]] = dataclasses.field(default_factory=dict)
    overlap: Callable[[str, str], bool] = str.__eq__


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three disjoint splits, the names of the classes and the shape of the images.

    `notes` say what else people should know of it.
    """

    name: str
    train: Source
    held_out: Source
    test: Source
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, ...]
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Source:
        """One of "train", "held_out" and "test"."""
        return {"train": self.train, "held_out": self.held_out, "test": self.test}[name]

    def digest(self) -> str:
        """A digest of the examples of all splits and of the classes' names.

        Files are known by their names within the folder: ImageNet's are 150 GB.
        """
        splits = [split.identity() for split in (self.train, self.held_out, self.test)]
        return _sha256(json.dumps([self.class_names, *splits]).encode())

    def __str__(self) -> str:
        height, width, channels = self.image_shape
        # A folder's images are not opened for this.
        size = f", images of {height}x{width}x{channels}" if height and width else ""
        summary = (
            f"{self.name}: {len(self.class_names)} classes{size}; {len(self.train)}"
            f" to train, {len(self.held_out)} held out, {len(self.test)} to test"
        )
        return "; ".join((summary, *self.notes))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
