"""What a run reads from elsewhere, identified by its content: it may be moved."""

import hashlib
import os
from typing import Any

from ofa_jax.checkpoint import SEAL
from ofa_jax.interop.hub import WEIGHTS
from ofa_jax.names import local_path
from ofa_jax.run.config import Config
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.sources import Dataset

PLACES = ("data.name", "init")  # the fields that may name them


def contents(config: Config, dataset: Dataset | None = None) -> dict[str, str]:
    """A digest of what each of `PLACES` names, "" for nothing.

    Args:
      dataset: the config's, where it is open already.

    Raises:
      ValueError: the data are not there, or cannot be read.
    """
    dataset = dataset or load_dataset(config.data)
    return {"data.name": dataset.digest(), "init": init_digest(config.init)}


def init_digest(init: str) -> str:
    """The SHA-256 of a file of weights, or of a supernet's checksums; "" where there is none."""
    path = local_path("init", init)
    places = (path, path / WEIGHTS, path / SEAL, path / "supernet" / SEAL)
    source = next((place for place in places if init and place.is_file()), None)
    if source is None:  # it is not needed once training is done
        return ""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_place(ours: Any, theirs: Any) -> bool:
    """Whether two values are one name, or one path differently written."""
    if ours == theirs:
        return True
    paths = all(isinstance(value, str) and "/" in value for value in (ours, theirs))
    return paths and _normal(ours) == _normal(theirs)


def _normal(path: str) -> str:
    return os.path.normpath(local_path("a path", path).absolute())
