"""The checkpoints of a run: state and metadata of one step, in a directory for each phase."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ofa_jax import checkpoint, storage
from ofa_jax.checkpoint import SEAL
from ofa_jax.files import writing
from ofa_jax.run.processes import is_first, lost_another, several

Tree = Any
_sealer = futures.ThreadPoolExecutor(1, "seal")  # large files take seconds, which no step waits for
_seals: dict[Path, futures.Future[None]] = {}  # of this process's checkpoints
STEP = re.compile("0|[1-9][0-9]{0,17}")  # the name of a checkpoint, as orbax writes it


@contextlib.contextmanager
def open_phase(workdir: Path, phase: str, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of one phase, of which the newest `keep` stay; `workdir` must exist."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, cleanup_tmp_directories=True
    )
    with writing(workdir):  # orbax would create one that vanished again
        (workdir / "checkpoints").mkdir(exist_ok=True)
    manager = ocp.CheckpointManager(phase_directory(workdir, phase), options=options)
    try:
        yield manager
    except BaseException:
        if not several():  # closing waits for all processes, and one may be lost
            with contextlib.suppress(Exception):
                manager.close()
        raise
    manager.close()


def phase_directory(workdir: Path, phase: str) -> Path:
    """Where a phase's checkpoints are."""
    return storage.absolute(workdir / "checkpoints" / phase)


def saved_steps(workdir: Path, phase: str) -> list[int]:
    """The steps of a phase's checkpoints, whole or not, newest first."""
    directory = phase_directory(workdir, phase)
    if not directory.is_dir():
        return []
    steps = (path for path in directory.iterdir() if STEP.fullmatch(path.name) and path.is_dir())
    return sorted((int(path.name) for path in steps), reverse=True)


def is_sealed(workdir: Path, phase: str, step: int) -> bool:
    """Whether a checkpoint was written to its end; a killed run may leave one that was not."""
    return (phase_directory(workdir, phase) / str(step) / SEAL).is_file()


def check_step(workdir: Path, phase: str, step: int) -> None:
    """Raises `ValueError`, naming the file, if a sealed checkpoint is not as it was written."""
    checkpoint.check_seal(phase_directory(workdir, phase) / str(step))


def put_aside(workdir: Path, phase: str, step: int) -> Path:
    """Moves a damaged checkpoint to `damaged/`, out of the way of its step; the new place."""
    return move_aside(workdir, phase_directory(workdir, phase) / str(step), f"{phase}-{step}")


def move_aside(workdir: Path, path: Path, name: str) -> Path:
    """Moves something to `damaged/`, beside what lies there; the new place."""
    names = (name, *(f"{name}-{number}" for number in range(2, 10_000)))
    places = (workdir / "damaged" / name for name in names)
    free = next(place for place in places if not place.exists())
    storage.move(path, free)
    return free


def save_step(
    manager: ocp.CheckpointManager, step: int, state: Tree, metadata: Mapping[str, Any]
) -> None:
    """Saves one step, atomically; writing continues while training does.

    All processes call it, and each writes what it alone has. The step is the data's position too:
    a batch follows from its number.

    Raises:
      OSError: this save, or the one before, could not be written; those before are whole.
    """
    finish_saves(manager)
    directory = storage.as_path(manager.directory)
    checkpoint.check_room(directory, state)
    _seals.pop(directory / str(step), None)
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(dict(metadata))
    )
    _written(manager, lambda: manager.save(step, args=items))


def finish_saves(manager: ocp.CheckpointManager) -> None:
    """Waits until every save is on disk and sealed with checksums; raises as `save_step`."""
    _seal(manager)
    for seal in _seals_of(manager):
        _written(manager, seal.result)


def seal_saves(manager: ocp.CheckpointManager) -> None:
    """Seals what is on disk completely, without waiting; to be called between steps."""
    if not manager.is_saving_in_progress():
        _seal(manager)
        for seal in filter(futures.Future.done, _seals_of(manager)):
            _written(manager, seal.result)


def _seal(manager: ocp.CheckpointManager) -> None:
    """Waits for the save, then has all steps without a seal sealed by another thread."""
    _written(manager, manager.wait_until_finished)
    if is_first():
        for step in manager.all_steps():
            directory = storage.as_path(manager.directory) / str(step)
            if directory not in _seals:  # asking a bucket at every step would take longer than it
                _seals[directory] = _sealer.submit(checkpoint.seal, directory)


def _seals_of(manager: ocp.CheckpointManager) -> list[futures.Future[None]]:
    directory = storage.as_path(manager.directory)
    return [seal for path, seal in _seals.items() if path.parent == directory]


def _written(manager: ocp.CheckpointManager, write: Callable[[], Any]) -> None:
    """Runs a write and turns whatever the storage raises into one line."""
    what = f"a checkpoint in {manager.directory} could not be written, those before it are whole"
    with checkpoint.in_one_line(what, unless=lost_another):
        write()


def restore_step(workdir: Path, phase: str, step: int, like: Tree) -> Tree:
    """The state saved at `step`, with the shapes and shardings of `like`.

    Raises:
      ValueError: the checkpoint is missing or cannot be read.
    """
    path = phase_directory(workdir, phase) / str(step)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(checkpoint.abstract(like)))
    with ocp.CheckpointManager(path.parent) as manager:
        return checkpoint.readable(path, lambda: manager.restore(step, args=items))["state"]
