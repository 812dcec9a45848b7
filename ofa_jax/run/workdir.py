"""The directory of a run: it belongs to one configuration."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ofa_jax.errors import InputError
from ofa_jax.files import naming, read_object, short, shown, write_json
from ofa_jax.plain import build
from ofa_jax.run import lock, processes
from ofa_jax.run.config import Config, from_dict, to_dict
from ofa_jax.run.contents import PLACES, contents, same_place
from ofa_jax.run.data.sources import Dataset

# Where data lies and how fast it comes: the processes of a run may each have their own way.
OWN = ("data.data_dir", "data.prefetch", "data.threads", "data.workers")
# And what becomes of corrupt images, how many devices there are and what they have memory for: a
# run may go on on another machine, and past an image that stopped it. A trained supernet can be
# searched, and what it gives fine-tuned and exported, in many ways (all of these groups).
FREE = (
    *OWN,
    "data.corrupt",
    "data.size",
    "export.",
    "finetune.",
    "parallel.devices",
    "parallel.micro_steps",
    "parallel.shard_optimizer",
    "parallel.timeout",
    "search.",
    "train.checkpoint_keep",
    "train.checkpoint_steps",
    "train.log_every",
)


def check(workdir: Path, config: Config) -> None:
    """Raises `ValueError`, naming the fields, if `workdir` belongs to another config.

    The fields in `FREE` may differ, and the paths in `PLACES` where what they name is the same.
    """
    path = workdir / "config.json"
    if path.exists():
        different = _differences(_flat(_plain(config)), _flat(_plain(read_config(path))))
        if different.keys() & {*PLACES}:
            different = _other_contents(workdir, config, different)
        if different:
            listed = "; ".join(list(different.values())[:3])
            raise InputError(f"{workdir} belongs to another config: {listed}")


def _other_contents(workdir: Path, config: Config, different: dict[str, str]) -> dict[str, str]:
    """The differences but for those of paths that name what the run began with."""
    stored = _stored_contents(workdir)
    with contextlib.suppress(InputError):  # nothing to compare with
        ours = contents(config) if stored else {}
        same = {place for place in PLACES if ours.get(place) and ours[place] == stored[place]}
        return {key: text for key, text in different.items() if key not in same}
    return different


def _stored_contents(workdir: Path) -> dict[str, str]:
    path = workdir / "contents.json"
    if not path.is_file():  # a run of an older version, or one that has not begun
        return {}
    with naming(path):
        return build(dict[str, str], read_object(path))


def check_contents(workdir: Path, config: Config, dataset: Dataset) -> None:
    """Writes what the run's data and `init` are where it begins, or compares the data with it.

    Raises:
      ValueError: the data are not those that the run began with.
    """
    if not _stored_contents(workdir):
        write_json(workdir / "contents.json", contents(config, dataset))
    check_unchanged(workdir, config, dataset)


def check_unchanged(workdir: Path, config: Config, dataset: Dataset) -> None:
    """Raises `ValueError` if the data are not those that the run of a workdir began with.

    With more images, others would be held out: some that were trained on.
    """
    stored = _stored_contents(workdir)
    if stored and stored.get("data.name") != dataset.digest():
        raise InputError(
            f"{workdir} was begun with other images, or other classes, than"
            f" data.name={shown(config.data.name)} has now ({dataset})"
        )


def check_processes(workdir: Path, config: Config) -> None:
    """Raises `ValueError`, naming both values, unless all processes have one config and workdir.

    The fields in `OWN` may differ.
    """
    values = {key: value for key, value in _flat(_plain(config)).items() if key not in OWN}
    versions = {"jax": jax.__version__, "--workdir": str(workdir)}
    processes.check_same("their config", {**values, **versions})


# What a run writes later. Where it is before the run begins, another one, or a person, wrote it.
RESULTS = ("checkpoints", "damaged", "evaluation.json", "finetune", "metrics.jsonl", "report.html",
           "search", "subnets", "tb")  # fmt: skip


def check_unclaimed(workdir: Path) -> None:
    """Raises `ValueError` if a directory that is no run's yet has what a run would replace, or use.

    Empty directories do no harm.
    """
    if (workdir / "config.json").exists():
        return
    for path in (workdir / name for name in RESULTS):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(
                f"{workdir} holds {path.name}, and no config.json of the run that it is of: give"
                " another --workdir, or move it away"
            )


OF_A_RUN = (lock.LOCK, "config.json", "supernet")  # one of them makes a directory a run's


class Vanished(OSError):
    """A run's directory no longer exists, or another has taken its place."""


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of a run's directory until left, as `lock.locked`.

    Of several processes the first one holds the lock. A directory that is no run's yet stays as it
    is.

    Raises:
      ValueError: it is in use, or cannot be written.
      Vanished: it went away meanwhile, in place of the error that this caused.
    """
    place = _inode(workdir)
    with contextlib.ExitStack() as held:
        with processes.together():
            if processes.is_first() and any((workdir / name).exists() for name in OF_A_RUN):
                with _written(workdir):
                    held.enter_context(lock.locked(workdir))
        try:
            yield
        except Vanished:  # was said where it was locked again
            raise
        except (InputError, OSError) as error:
            # Which file is missed first is chance, and what is said of it misleads.
            if place and _inode(workdir) != place:
                raise Vanished(f"workdir {workdir} has vanished: {error}") from error
            raise


def _inode(workdir: Path) -> tuple[int, int] | None:
    """What is this directory's own, wherever it is moved; None for none, and in a bucket."""
    try:
        found = os.stat(workdir)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def claim(workdir: Path, config: Config, dataset: Dataset) -> Iterator[None]:
    """Makes `workdir`, writes its `config.json` and keeps other runs out, as `locked`, until left.

    Raises:
      ValueError: it belongs to another config or to other data, is in use, cannot be written or is
        not shared.
    """
    with contextlib.ExitStack() as held:
        with processes.together():
            check(workdir, config)
            if processes.is_first():
                _write_config(workdir, config, dataset, held)
        with processes.together():
            if not (workdir / "config.json").is_file():
                raise InputError(f"workdir {workdir} is not the first process's: it must be shared")
        yield


def _write_config(
    workdir: Path, config: Config, dataset: Dataset, held: contextlib.ExitStack
) -> None:
    with _written(workdir):
        check_unclaimed(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock.locked(workdir))
        check_contents(workdir, config, dataset)
        write_json(workdir / "config.json", _plain(config))


@contextlib.contextmanager
def _written(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or short(error)
        raise InputError(f"workdir {workdir} cannot be written: {reason}") from error


def stored_config(workdir: Path) -> Config:
    """The configuration a workdir was made with.

    Raises:
      ValueError: there is none, or it is broken.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: give --config, for example configs/digits.py")
    return read_config(path)


def read_config(path: Path) -> Config:
    """The configuration that a `config.json` holds; `ValueError`, naming the file, for another."""
    with naming(path):
        return from_dict(read_object(path))


def _plain(config: Config) -> dict[str, Any]:
    return json.loads(json.dumps(to_dict(config)))  # tuples become lists, as in the file


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, str]:
    """The fields that differ and may not, with both values, for people."""
    return {
        key: f"{key} is {shown(theirs.get(key))} there, {shown(ours.get(key))} here"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
        and not _free(key)
        and not (key in PLACES and same_place(ours.get(key), theirs.get(key)))
    }


def _free(key: str) -> bool:
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {})
        if not isinstance(value, dict):
            flat[prefix + key] = value
    return flat
