"""The directory of a run: it belongs to one configuration."""

import json
from pathlib import Path
from typing import Any

from ofa_jax import checkpoint
from ofa_jax.config import Config, from_dict, to_dict


def claim(workdir: Path, config: Config) -> None:
    """Makes `workdir` and writes `config.json`, or checks that it belongs to this config.

    Raises:
      ValueError: it belongs to another config, naming the fields that differ, or is unwritable.
    """
    path = workdir / "config.json"
    ours = json.loads(json.dumps(to_dict(config)))
    if path.exists():
        different = _differences(ours, _read(path))
        if different:
            raise ValueError(f"{workdir} belongs to another config: {'; '.join(different[:3])}")
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(path, ours)
    except OSError as error:
        raise ValueError(f"workdir {workdir} cannot be written: {error.strerror}") from error


def stored_config(workdir: Path) -> Config:
    """The configuration a workdir was made with.

    Raises:
      ValueError: there is none, or it is broken.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give --config, for example configs/digits.py")
    return from_dict(_read(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    ours, theirs = _flat(ours), _flat(theirs)
    return [
        f"{key} is {theirs.get(key)!r} there, {ours.get(key)!r} here"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {})
        if not isinstance(value, dict):
            flat[prefix + key] = value
    return flat
