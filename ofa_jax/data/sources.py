"""Where images come from: sources, and the splits of a dataset made of them."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ofa_jax.config import DataConfig
from ofa_jax.data.image_files import counts
from ofa_jax.errors import InputError
from ofa_jax.names import local_path

USUAL_SPLITS = ("test", "validation", "val", "valid")  # in the order that tests prefer
NO_SPLIT = "none"
SPLIT_SEED = 0  # splits are part of the dataset: they never follow the run's seed
DIGITS_TEST_IMAGES = 360


class Source(Protocol):
    """Random access to examples {"image": encoded bytes or uint8 pixels, "label": int}."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...

    def where(self, index: int, /) -> str:
        """Index and file of an example, for people."""
        ...

    def identity(self) -> str:
        """What tells these examples from others, wherever they lie."""
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
    split that is open, how many files are not used, by kind.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, ...]
    splits: tuple[str, ...]
    open: Callable[[str], Source]
    left_out: Mapping[str, Counter[str]] = dataclasses.field(default_factory=dict)


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
        size = f"{height}x{width}x{channels}" if height and width else "various sizes"
        told = (
            f"{self.name}: {len(self.class_names)} classes, images of {size}; {len(self.train)}"
            f" to train, {len(self.held_out)} held out, {len(self.test)} to test"
        )
        return "; ".join((told, *self.notes))


def load_dataset(config: DataConfig) -> Dataset:
    """The dataset that a config names, with its three splits.

    `name` is "digits", the path of a folder (a prepared tfds dataset's, or one of images by
    class), or the name of a tfds dataset, which is downloaded and prepared where it is not there.

    Raises:
      ValueError: no such dataset, folder or split; or too few images to hold some back.
    """
    return split_up(find_collection(config), config)


def find_collection(config: DataConfig) -> Collection:
    """The dataset as it is, before held-out images are carved from it."""
    # Imported where needed: tfds takes half a second, and digits do without.
    from ofa_jax.data import image_folder, tfds_source

    name = config.name
    if name == "digits":
        return digits()
    folder = local_path("data.name", name)
    if not (name.startswith(("/", ".", "~")) or ("/" in name and folder.is_dir())):
        return tfds_source.by_name(config)
    if not folder.is_dir():
        raise InputError(f"data.name={name!r}: there is no such folder")
    if (folder / "dataset_info.json").is_file():
        return tfds_source.from_folder(folder, config)
    prepared = sorted(folder.glob("*/dataset_info.json"))
    if prepared:
        raise InputError(f"data.name={name!r}: give the version's folder, {prepared[-1].parent}")
    return image_folder.image_folder(folder, config.train_split)


def split_up(found: Collection, config: DataConfig) -> Dataset:
    """Opens the splits; what the dataset lacks is carved from its training images.

    The test split is `config.test_split`, else "test", else a validation split. The held-out one is
    `config.held_out_split`, else a validation split that is not the test split, else
    `config.held_out` training images. Where there is no test split, or it is "none", as many are
    carved for it.
    """
    train = _open(found, "train_split", config.train_split)
    usual = [s for s in USUAL_SPLITS if s in found.splits and s != config.train_split]
    test_split = config.test_split or next(iter(usual), NO_SPLIT)
    rest = [s for s in usual if s not in (test_split, "test")]
    held_out_split = config.held_out_split or next(iter(rest), NO_SPLIT)
    held_out = _open_or_carve(found, "held_out_split", held_out_split)
    test = _open_or_carve(found, "test_split", test_split)
    needed = [held_out is None, test is None]
    if any(needed) and not 0 < config.held_out * sum(needed) < len(train):
        raise InputError(
            f"data.held_out={config.held_out}: expected 1 to {(len(train) - 1) // sum(needed)}"
            f" for {found.name}, which has {len(train)} training images"
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    sizes = [config.held_out * need for need in needed]
    carved = np.split(order, np.cumsum(sizes))
    parts = [Subset(train, np.sort(part)) for part in carved]
    return Dataset(
        name=found.name,
        train=parts[2],
        held_out=held_out or parts[0],
        test=test or parts[1],
        class_names=found.class_names,
        image_shape=found.image_shape,
        notes=_notes(found, (config.train_split, held_out_split, test_split)),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _notes(found: Collection, opened: tuple[str, str, str]) -> tuple[str, ...]:
    used = {name for split in opened for name in _names(split)}
    unused = ", ".join(split for split in found.splits if split not in used)
    left_out = counts(sum(found.left_out.values(), Counter()))
    notes = {
        "no test split, so test images are held out of the training split": opened[2] == NO_SPLIT,
        f"not used: {unused}": unused,
        f"left out: {left_out}": left_out,
    }
    return tuple(note for note, holds in notes.items() if holds)


def _names(split: str) -> list[str]:
    """The splits that "train", or "train[:10%]" or "train+test", is made of."""
    return [part.split("[")[0] for part in split.split("+")]


def _open_or_carve(found: Collection, field: str, split: str) -> Source | None:
    """Opens a split; None for "none"."""
    if split == NO_SPLIT:
        return None
    try:
        return _open(found, field, split)
    except InputError as error:
        hint = f"data.{field}={NO_SPLIT!r} holds out training images instead"
        raise InputError(f"{error}; {hint}") from error


def _open(found: Collection, field: str, split: str) -> Source:
    """Opens a split such as "train", or of a tfds dataset "train[:10%]" or "train+test"."""
    if not all(name in found.splits for name in _names(split)):
        raise InputError(f"data.{field}={split!r}: {found.name} has {', '.join(found.splits)}")
    try:
        source = found.open(split)
    except KeyError as error:
        raise InputError(f"data.{field}={split!r}: only splits of tfds can be sliced") from error
    except ValueError as error:
        raise InputError(f"data.{field}={split!r} of {found.name}: {error}") from error
    if not len(source):
        raise InputError(f"data.{field}={split!r} of {found.name} has no images")
    return source


def digits() -> Collection:
    """Scikit-learn's handwritten digits: 1,797 real 8x8 images that ship inside that package.

    360 of them, always the same, are the test split.
    """
    from sklearn.datasets import load_digits  # half a second, which other datasets do without

    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    parts = dict(zip(("test", "train"), np.split(order, [DIGITS_TEST_IMAGES]), strict=True))

    def open_split(split: str) -> Source:
        return ArraySource(images[parts[split]], labels[parts[split]], f"digits {split}")

    return Collection("digits", tuple(map(str, range(10))), (8, 8, 1), tuple(parts), open_split)
