"""What a run reads from elsewhere, identified by its content: it may be moved."""

import os
from typing import Any

from ofa_jax.checkpoint import SEAL, checksum
from ofa_jax.interop.hub import WEIGHTS
from ofa_jax.names import place
from ofa_jax.run.config import Config
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.sources import Dataset
from ofa_jax.storage import absolute

PLACES = ("data.name", "init")  # the fields that may name them


def contents(config: Config, dataset: Dataset | None = None) -> dict[str, str]:
    """A digest of what each of `PLACES` names, "" for nothing.

    Args:
      dataset: the config's, where it is open already.

    Raises:
      ValueError: the data do not exist, or cannot be read.
    """
    dataset = dataset or load_dataset(config.data)
    return {"data.name": dataset.digest(), "init": init_digest(config.init)}


def init_digest(init: str) -> str:
    """The SHA-256 of a file of weights, or of a supernet's checksums; "" where there is none."""
    path = place("init", init)
    files = (path, path / WEIGHTS, path / SEAL, path / "supernet" / SEAL)
    source = next((file for file in files if init and file.is_file()), None)
    if source is None:  # it is not needed once training is done
        return ""
    return checksum(source)


def same_place(ours: Any, theirs: Any) -> bool:
    """Whether two values are one name, or one path differently written."""
    if ours == theirs:
        return True
    paths = all(isinstance(value, str) and "/" in value for value in (ours, theirs))
    return paths and _normal(ours) == _normal(theirs)


def _normal(path: str) -> str:
    return os.path.normpath(absolute(place("a path", path)))
