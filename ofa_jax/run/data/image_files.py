"""Which files are images, and what else lies beside them: one rule for training and prediction."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ofa_jax.names import printable
from ofa_jax.run.data.decode import SUFFIXES

KINDS = 8  # of files left out, that are listed one by one
# What systems and network drives put into any folder, beside files with a leading dot; lower case.
SYSTEM = ("__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found",
          "system volume information", "desktop.ini", "thumbs.db", "ehthumbs.db",
          "__pycache__")  # fmt: skip


def sort_out(entries: Iterable[Path | os.DirEntry[str]]) -> tuple[list[Path], Counter[str]]:
    """The images among some files and folders, in order, and how many files are none, by kind.

    An image is a file with a suffix that the decoder reads. Files in folders are left out.
    """
    images, left = [], Counter[str]()
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if is_hidden(entry.name):
            left["hidden"] += 1
        elif os.path.isdir(entry):
            left["in nested folders"] += sum(1 for _ in files_below(entry))
        elif suffix in SUFFIXES and os.path.isfile(entry):  # no pipe, no broken link, no loop
            images.append(Path(entry))
        else:
            left[printable(suffix) or "without a suffix"] += 1
    return sorted(images), left


def files_below(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """All files below a folder, but for those of hidden folders; links to folders are not followed.

    Raises:
      OSError: a folder that cannot be listed.
    """
    for place, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not is_hidden(name)]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (Path(place, name) for name in (*names, *links))


def _fail(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # it was removed meanwhile
        raise error


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not meant to be seen: a leading dot, or what systems leave."""
    return name.startswith(".") or name.lower() in SYSTEM


def counts(left: Counter[str]) -> str:
    """Files left out, as "12 .txt, 3 .heic"."""
    frequent = dict(left.most_common(KINDS))
    if len(left) > KINDS:
        frequent["others"] = left.total() - sum(frequent.values())
    return ", ".join(f"{count:,} {kind}" for kind, count in frequent.items() if count)
