"""The dataset that a config names: opened and split in three."""

import itertools
from collections import Counter

import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.files import shown
from ofa_jax.names import local_path
from ofa_jax.run.data.image_files import counts
from ofa_jax.run.data.image_folder import image_folder
from ofa_jax.run.data.sources import USUAL_SPLITS, ArraySource, Collection, Dataset, Source, Subset
from ofa_jax.run.groups.data import DataConfig

NO_SPLIT = "none"
SPLIT_SEED = 0  # splits are part of the dataset: they never follow the run's seed
DIGITS_TEST_IMAGES = 360


def load_dataset(config: DataConfig) -> Dataset:
    """The dataset that a config names, with its three splits.

    `name` is "digits", the path of a folder (a prepared tfds dataset's, or one of images by
    class), or the name of a tfds dataset, which is downloaded and prepared where it does not exist.

    Raises:
      ValueError: no such dataset, folder or split; or too few images to hold some back.
    """
    return split_up(find_collection(config), config)


def find_collection(config: DataConfig) -> Collection:
    """The dataset as it is, before held-out images are carved from it."""
    # Imported where needed: tfds takes half a second, and digits do without.
    from ofa_jax.run.data import tfds_source

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
    return image_folder(folder, config.train_split)


def split_up(collection: Collection, config: DataConfig) -> Dataset:
    """Opens the splits; what the dataset lacks is carved from its training images.

    The test split is `config.test_split`, else "test", else a validation split. The held-out one is
    `config.held_out_split`, else a validation split that is not the test split, else
    `config.held_out` training images. Where there is no test split, or it is "none", as many are
    carved for it.
    """
    train = _open(collection, "train_split", config.train_split)
    usual = [s for s in USUAL_SPLITS if s in collection.splits and s != config.train_split]
    test_split = config.test_split or next(iter(usual), NO_SPLIT)
    rest = [s for s in usual if s not in (test_split, "test")]
    held_out_split = config.held_out_split or next(iter(rest), NO_SPLIT)
    held_out = _open_or_carve(collection, "held_out_split", held_out_split)
    test = _open_or_carve(collection, "test_split", test_split)
    _check_disjoint(collection, train_split=config.train_split, test_split=test_split,
                    held_out_split=held_out_split)  # fmt: skip
    needed = [held_out is None, test is None]
    if any(needed) and not 0 < config.held_out * sum(needed) < len(train):
        raise InputError(
            f"data.held_out={config.held_out}: expected 1 to {(len(train) - 1) // sum(needed)}"
            f" for {collection.name}, which has {len(train)} training images"
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    sizes = [config.held_out * need for need in needed]
    carved = np.split(order, np.cumsum(sizes))
    parts = [Subset(train, np.sort(part)) for part in carved]
    return Dataset(
        name=collection.name,
        train=parts[2],
        held_out=held_out or parts[0],
        test=test or parts[1],
        class_names=collection.class_names,
        image_shape=collection.image_shape,
        notes=_notes(collection, (config.train_split, held_out_split, test_split)),
    )


def _notes(collection: Collection, opened: tuple[str, str, str]) -> tuple[str, ...]:
    used = {name for split in opened for name in _names(split)}
    unused = ", ".join(split for split in collection.splits if split not in used)
    left_out = counts(sum(collection.left_out.values(), Counter()))
    notes = {
        "no test split, so test images are held out of the training split": opened[2] == NO_SPLIT,
        f"not used: {unused}": unused,
        f"left out: {left_out}": left_out,
    }
    return tuple(note for note, holds in notes.items() if holds)


def _names(split: str) -> list[str]:
    """The splits that "train", or "train[:10%]" or "train+test", is made of."""
    return [part.split("[")[0] for part in split.split("+")]


def _check_disjoint(collection: Collection, **splits: str) -> None:
    """Raises `ValueError` if two of the splits have images in common."""
    opened = {field: split for field, split in splits.items() if split != NO_SPLIT}
    for (field, split), (other, theirs) in itertools.combinations(opened.items(), 2):
        if collection.overlap(split, theirs):
            raise InputError(
                f"data.{other}={shown(theirs)} has images of data.{field}={shown(split)}:"
                f" data.{other}={NO_SPLIT!r} holds out training images instead"
            )


def _open_or_carve(collection: Collection, field: str, split: str) -> Source | None:
    """Opens a split; None for "none"."""
    if split == NO_SPLIT:
        return None
    try:
        return _open(collection, field, split)
    except InputError as error:
        hint = f"data.{field}={NO_SPLIT!r} holds out training images instead"
        raise InputError(f"{error}; {hint}") from error


def _open(collection: Collection, field: str, split: str) -> Source:
    """Opens a split such as "train", or of a tfds dataset "train[:10%]" or "train+test"."""
    if not all(name in collection.splits for name in _names(split)):
        raise InputError(
            f"data.{field}={shown(split)}: {collection.name} has {', '.join(collection.splits)}"
        )
    try:
        source = collection.open(split)
    except KeyError as error:
        raise InputError(
            f"data.{field}={shown(split)}: only splits of tfds can be sliced"
        ) from error
    except ValueError as error:
        raise InputError(f"data.{field}={shown(split)} of {collection.name}: {error}") from error
    if not len(source):
        raise InputError(f"data.{field}={shown(split)} of {collection.name} has no images")
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
