"""Checkpoints and saved networks; the only file that imports orbax."""

import contextlib
import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from ofa_jax.files import naming, read_json, short, write_json, writing
from ofa_jax.models import Network, build_subnet, build_supernet
from ofa_jax.names import check_inside
from ofa_jax.plain import build
from ofa_jax.processes import is_first, lost_another, several
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import space_from_dict

Tree = Any
SEAL = "sha256.json"

# -- inside a run: state and metadata of one step -----------------------------------------------


@contextlib.contextmanager
def open_phase(workdir: Path, phase: str, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of one phase, of which the newest `keep` stay; `workdir` must exist."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, cleanup_tmp_directories=True
    )
    with writing(workdir):  # orbax would make one that vanished anew
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
    return (workdir / "checkpoints" / phase).absolute()


def saved_steps(workdir: Path, phase: str) -> list[int]:
    """The steps of a phase's checkpoints, whole or not, newest first."""
    directory = phase_directory(workdir, phase)
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.name.isdigit()), reverse=True)


def is_sealed(workdir: Path, phase: str, step: int) -> bool:
    """Whether a checkpoint was written to its end; a killed run may leave one that was not."""
    return (phase_directory(workdir, phase) / str(step) / SEAL).is_file()


def check_step(workdir: Path, phase: str, step: int) -> None:
    """Raises `ValueError`, naming the file, if a sealed checkpoint is not as it was written."""
    _check_seal(phase_directory(workdir, phase) / str(step))


def put_aside(workdir: Path, phase: str, step: int) -> Path:
    """Moves a damaged checkpoint to `damaged/`, out of the way of its step; the new place."""
    place = workdir / "damaged" / f"{phase}-{step}"
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)  # of the same step, when it was damaged before
    return (phase_directory(workdir, phase) / str(step)).rename(place)


def save_step(
    manager: ocp.CheckpointManager, step: int, state: Tree, metadata: Mapping[str, Any]
) -> None:
    """Saves one step, atomically; writing goes on while training does.

    All processes call it, and each writes what it alone has. The step is the data's position too:
    a batch follows from its number.

    Raises:
      OSError: this save, or the one before, could not be written; those before are whole.
    """
    finish_saves(manager)
    _check_room(Path(manager.directory), state)
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(dict(metadata))
    )
    _written(manager, lambda: manager.save(step, args=items))


def _check_room(directory: Path, state: Tree) -> None:
    # Found by orbax, a full disk costs pages of tracebacks from threads of its own. It writes the
    # state twice, by process and merged, before it drops the first.
    needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with writing(directory):
        free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            f"no space left for a checkpoint in {directory}: {needed / 1e6:.1f} MB are needed,"
            f" {free / 1e6:.1f} MB free; those before it are whole"
        )


def finish_saves(manager: ocp.CheckpointManager) -> None:
    """Waits until every save is on disk, and seals it with checksums; raises as `save_step`."""
    _written(manager, manager.wait_until_finished)
    if is_first():
        for step in manager.all_steps():
            _written(manager, functools.partial(_seal, Path(manager.directory) / str(step)))


def seal_saves(manager: ocp.CheckpointManager) -> None:
    """Seals what is on disk completely, without waiting; to be called between steps."""
    if not manager.is_saving_in_progress():
        finish_saves(manager)


def _written(manager: ocp.CheckpointManager, write: Callable[[], Any]) -> None:
    """Runs a write and turns whatever the storage raises into one line."""
    what = f"a checkpoint in {manager.directory} could not be written, those before it are whole"
    with _in_one_line(what):
        write()


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tensorstore, the system and orbax each raise their own
        if lost_another(error):
            raise  # not the storage
        reason = " ".join(str(error).split())[-200:]  # the cause comes last
        raise OSError(f"{what}: {reason}") from error


def restore_step(workdir: Path, phase: str, step: int, like: Tree) -> Tree:
    """The state saved at `step`, with the shapes and shardings of `like`.

    Raises:
      ValueError: the checkpoint is missing or cannot be read.
    """
    path = phase_directory(workdir, phase) / str(step)
    items = ocp.args.Composite(state=ocp.args.StandardRestore(_abstract(like)))
    with ocp.CheckpointManager(path.parent) as manager:
        return _readable(path, lambda: manager.restore(step, args=items))["state"]


# -- for others: one directory a network ----------------------------------------------------------


def save_network(
    directory: Path,
    variables: Tree,
    description: Mapping[str, Any],
    more: Callable[[], None] = lambda: None,
) -> None:
    """Writes variables and their description (space, arch, ...), replacing `directory` at once.

    For one process alone: of several, only one should. `more` writes further files there, before
    checksums are taken.

    Raises:
      OSError: it could not be written.
    """
    variables = jax.device_get(variables)
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables), description=ocp.args.JsonSave(dict(description))
    )
    _check_room(directory.parent, variables)
    with _checkpointer() as checkpointer, _in_one_line(f"{directory} could not be written"):
        checkpointer.save(directory.absolute(), args=items, force=True)
    more()
    _seal(directory)


def load_supernet(directory: str | Path) -> tuple[SearchSpace, Network, Tree]:
    """Restores a trained supernet: `space, net, variables`. No configuration is needed.

    Raises:
      ValueError: the directory is missing, incomplete or not a supernet.
    """
    space = describe(Path(directory)).space
    net = build_supernet(space)
    return space, net, _load_variables(Path(directory), net, space.largest())


def load_space(directory: str | Path) -> SearchSpace:
    """The space of a saved supernet alone: its weights are neither read nor checked.

    Raises:
      ValueError: the directory is missing or not a supernet's.
    """
    return describe(Path(directory), check=False).space


def load_subnet(directory: str | Path) -> tuple[Network, Tree]:
    """Restores an extracted subnet: `subnet, variables`, ready for `subnet.apply`.

    Raises:
      ValueError: the directory is missing, incomplete or not a subnet.
    """
    network = Path(directory) / "orbax"
    description = describe(network)
    if description.arch is None:
        raise ValueError(f"{directory} holds no subnet: its description has no arch")
    subnet = build_subnet(description.space, description.arch)
    return subnet, _load_variables(network, subnet, None)


def _checkpointer() -> ocp.Checkpointer:
    """One that does not wait for other processes."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    handler = ocp.CompositeCheckpointHandler(composite_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


class Description(NamedTuple):
    """What a saved network says of itself."""

    space: SearchSpace
    arch: Arch | None
    classes: tuple[str, ...]
    normalization: Mapping[str, tuple[float, ...]]  # "mean" and "std" of its images, or nothing


@dataclasses.dataclass(frozen=True)
class _Written:
    """A description as JSON holds it, among other fields."""

    space: dict[str, Any]
    arch: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    normalization: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)


def describe(directory: Path, check: bool = True) -> Description:
    """What a saved network says of itself; `check` looks at its files' checksums first.

    Raises:
      ValueError: the directory is missing, damaged or no network's.
    """
    with _checkpointer() as checkpointer:
        items = ocp.args.Composite(description=ocp.args.JsonRestore())
        restore = functools.partial(checkpointer.restore, directory.absolute(), items)
        found = _readable(directory, restore, check)["description"]
    with naming(directory):
        if not isinstance(found, dict) or "space" not in found:
            raise ValueError("it holds no network: its description has no space")
        written = build(_Written, found, strict=False)
        space = space_from_dict(written.space)
        arch = None if written.arch is None else space.arch_from_dict(written.arch)
        return Description(space, arch, written.classes, written.normalization)


def _load_variables(directory: Path, net: Network, arch: Any) -> Tree:
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    like = jax.eval_shape(net.init, jax.random.key(0), image, arch)
    items = ocp.args.Composite(variables=ocp.args.StandardRestore(_abstract(like)))
    with _checkpointer() as checkpointer:
        found = _readable(directory, lambda: checkpointer.restore(directory.absolute(), items))
    return found["variables"]


def _abstract(like: Tree) -> Tree:
    """Shapes, dtypes and shardings to restore into; the first local device where none is given."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here
        ),
        like,
    )


def _readable(path: Path, restore: Callable[[], Any], check: bool = True) -> Any:
    """Runs a restore and turns whatever the storage raises into one line that names the path."""
    if not path.is_dir():
        raise ValueError(f"no checkpoint at {path}")
    for inner in path.rglob("*"):  # a pipe would be waited for
        if not (inner.is_file() or inner.is_dir()):
            raise ValueError(f"checkpoint {path} cannot be read: {inner.name} is no regular file")
    if check:
        _check_seal(path)
    try:
        return restore()
    except Exception as error:  # tensorstore, zarr, JSON and orbax each raise their own
        raise ValueError(f"checkpoint {path} cannot be read: {short(error)}") from error


# Orbax finds a missing file, not a changed one, and a damaged array makes it print pages; so
# finished checkpoints carry checksums of their files, looked at before anything is restored.


def _seal(directory: Path) -> None:
    if not (directory / SEAL).exists():
        write_json(directory / SEAL, _checksums(directory))


def _check_seal(directory: Path) -> None:
    if not (directory / SEAL).exists():  # killed between the save and its seal
        return
    try:
        expected = build(dict[str, str], read_json(directory / SEAL))
        for name in expected:
            check_inside(SEAL, name)
    except ValueError as error:
        raise ValueError(f"checkpoint {directory} cannot be read: {SEAL} is damaged") from error
    # What else lies there, such as .DS_Store, is nobody's damage.
    for name, wanted in sorted(expected.items()):
        path = directory / name
        if not path.is_file():
            raise ValueError(f"checkpoint {directory} cannot be read: its file {name} is missing")
        if checksum(path) != wanted:
            raise ValueError(
                f"checkpoint {directory} cannot be read: its file {name} is altered or truncated"
            )


def _checksums(directory: Path) -> dict[str, str]:
    checksums = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != SEAL):
        checksums[str(path.relative_to(directory))] = checksum(path)
    return checksums


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
