"""A folder of images, one folder a class: `root/class/image.jpg`, or that inside each split's."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from ofa_jax.errors import InputError
from ofa_jax.files import read_bytes
from ofa_jax.names import printable, read_name
from ofa_jax.run.data.decode import SUFFIXES
from ofa_jax.run.data.image_files import counts, is_hidden, sort_out
from ofa_jax.run.data.sources import USUAL_SPLITS, Collection, Source


class FolderSource:
    """The images of one split, by class and name; read on demand.

    `left_out` counts the files that are not used, by kind.

    Raises:
      ValueError: no class folders, one that is not of these classes, or one without images.
    """

    def __init__(self, root: Path, class_names: tuple[str, ...]):
        self.root = root
        self.files: list[str] = []
        self.labels: list[int] = []
        self.left_out = _outside(root)
        folders = class_folders(root)
        if not folders:
            raise InputError(
                f"{printable(root)} has no class folders, but {counts(self.left_out) or 'nothing'}"
            )
        for name, folder in folders.items():
            if name not in class_names:
                raise InputError(f"{printable(folder)}: there is no such class to train on")
            images, left_out = sort_out(os.scandir(folder))
            if not images:
                raise InputError(
                    f"{printable(folder)} has no images ({' '.join(SUFFIXES)}), but"
                    f" {counts(left_out) or 'nothing'}"
                )
            self.files += [f"{folder.name}/{image.name}" for image in images]
            self.labels += [class_names.index(name)] * len(images)
            self.left_out += left_out

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"image": read_bytes(self.root / self.files[index]), "label": self.labels[index]}

    def where(self, index: int, /) -> str:
        return f"{printable(self.root / self.files[index])} (image {index})"

    def identity(self) -> str:
        return "\n".join(map(printable, self.files))


def image_folder(root: Path, train_split: str = "train") -> Collection:
    """`root/class/*`, or `root/train/class/*` with `root/val` (validation, test) beside it.

    Folders beside `train` are looked into when they are opened, as not all of them are splits.

    Raises:
      ValueError: fewer than two class folders, or one whose name is no UTF-8.
    """
    splits = {printable(path.name): path for path in _folders(root)}
    if train_split not in splits or not _folders(splits[train_split]):
        train_split, splits = "train", {"train": root}
    class_names = tuple(class_folders(splits[train_split]))
    only_splits = {name.lower() for name in class_names} <= {"train", *USUAL_SPLITS}
    if len(class_names) < 2 or only_splits:
        raise InputError(
            f"data.name={str(root)!r}: expected a folder of images for each class, found"
            f" {', '.join(class_names) or 'none'} in {printable(splits[train_split])}"
        )
    if splits == {"train": root}:
        _check_flat(root, class_names)
    left_out: dict[str, Counter[str]] = {}

    def open_split(split: str) -> Source:
        source = FolderSource(splits[split], class_names)
        left_out[split] = source.left_out
        return source

    name = printable(root.absolute().name)
    return Collection(name, class_names, (None, None, 3), tuple(splits), open_split, left_out)


def _check_flat(root: Path, class_names: tuple[str, ...]) -> None:
    """Raises `ValueError` for a folder that is called as a split among those of classes."""
    for name in class_names:
        if name.lower() in USUAL_SPLITS:
            raise InputError(
                f"data.name={str(root)!r}: {name} lies among the folders of classes: say"
                f" data.train_split, move the classes into a folder train beside it, or {name} away"
            )


def class_folders(root: Path) -> dict[str, Path]:
    """The folders in a folder by the classes' names, in their order."""
    return dict(sorted((read_name(path), path) for path in _folders(root)))


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name))


def _outside(root: Path) -> Counter[str]:
    """What lies beside the class folders."""
    images, left_out = sort_out(path for path in root.iterdir() if not path.is_dir())
    return left_out + Counter(f"{image.suffix.lower()} outside class folders" for image in images)
