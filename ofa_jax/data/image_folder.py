"""A folder of images, one folder a class: `root/class/image.jpg`, or that inside each split's."""

from pathlib import Path
from typing import Any

from ofa_jax.data.sources import Collection, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


class FolderSource:
    """The images of one split, by class and name; read when asked for."""

    def __init__(self, root: Path, class_names: tuple[str, ...]):
        self.root, self.files, self.labels = root, [], []
        for label, name in enumerate(class_names):
            files = _images(root / name)
            self.files += [f"{name}/{file}" for file in files]
            self.labels += [label] * len(files)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"image": (self.root / self.files[index]).read_bytes(), "label": self.labels[index]}

    def where(self, index: int, /) -> str:
        return f"{self.root / self.files[index]} (image {index})"


def image_folder(root: Path) -> Collection:
    """`root/class/*`, or `root/train/class/*` with `root/val` (validation, test) beside it.

    Raises:
      ValueError: no class folders, a class without images, or a split with classes of its own.
    """
    splits = {name: root / name for name in _folders(root)} if _has_splits(root) else {}
    splits = splits or {"train": root}
    class_names = tuple(_folders(splits["train"]))
    if len(class_names) < 2:
        raise ValueError(
            f"data.name={str(root)!r}: expected a folder of images for each class, found"
            f" {', '.join(class_names) or 'none'} in {splits['train']}"
        )
    for split, folder in splits.items():
        strangers = sorted({*_folders(folder)} - {*class_names})
        if strangers:
            raise ValueError(f"{folder / strangers[0]}: there is no such class in {root / 'train'}")
        for name in class_names if split == "train" else _folders(folder):
            if not _images(folder / name):
                raise ValueError(f"{folder / name} is empty: expected {' '.join(SUFFIXES)} files")

    def open_split(split: str) -> Source:
        return FolderSource(splits[split], class_names)

    sizes = {s: sum(len(_images(f / n)) for n in _folders(f)) for s, f in splits.items()}
    return Collection(root.name, class_names, (None, None, 3), sizes, open_split)


def _has_splits(root: Path) -> bool:
    return (root / "train").is_dir() and bool(_folders(root / "train"))


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
