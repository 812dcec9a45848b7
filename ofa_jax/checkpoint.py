"""Saved networks: variables and what they are of, one directory each."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from ofa_jax import storage
from ofa_jax.errors import InputError
from ofa_jax.families import space_from_dict
from ofa_jax.files import naming, read_json, short, write_json, writing
from ofa_jax.names import check_classes, check_inside
from ofa_jax.network import Network, build_subnet, build_supernet
from ofa_jax.plain import build
from ofa_jax.space import Arch, SearchSpace

Tree = Any
SEAL = "sha256.json"
ITEMS = ("description", "metadata", "state", "variables")  # directories of a checkpoint


def save_network(
    directory: Path,
    variables: Tree,
    description: Mapping[str, Any],
    more: Callable[[Path], None] = lambda _: None,
) -> None:
    """Writes variables and their description (space, arch, ...), replacing `directory` at once.

    For one process alone: of several, only one should. `more` writes further files to a directory
    that takes the place of this one, before checksums are taken.

    Raises:
      OSError: it could not be written.
    """
    variables = jax.device_get(variables)
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables), description=ocp.args.JsonSave(dict(description))
    )
    check_room(directory.parent, variables)
    with storage.replaced(directory, SEAL) as made:
        with _checkpointer() as checkpointer, in_one_line(f"{directory} could not be written"):
            checkpointer.save(made.absolute(), args=items, force=True)
        more(made)
        seal(made)


def load_supernet(directory: str | Path) -> tuple[SearchSpace, Network, Tree]:
    """Restores a trained supernet: `space, net, variables`. No configuration is needed.

    Raises:
      ValueError: the directory is missing, incomplete or not a supernet.
    """
    directory = storage.as_path(directory)
    space = describe(directory).space
    net = build_supernet(space)
    return space, net, _load_variables(directory, net, space.largest())


def load_space(directory: str | Path) -> SearchSpace:
    """The space of a saved supernet alone: its weights are neither read nor checked.

    Raises:
      ValueError: the directory is missing or not a supernet's.
    """
    return describe(storage.as_path(directory), check=False).space


def load_subnet(directory: str | Path) -> tuple[Network, Tree]:
    """Restores an extracted subnet: `subnet, variables`, ready for `subnet.apply`.

    Raises:
      ValueError: the directory is missing, incomplete or not a subnet.
    """
    network = storage.as_path(directory) / "orbax"
    description = describe(network)
    if description.arch is None:
        raise InputError(f"{directory} holds no subnet: its description has no arch")
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
        restore = functools.partial(checkpointer.restore, storage.absolute(directory), items)
        stored = readable(directory, restore, check)["description"]
    with naming(directory):
        if not isinstance(stored, dict) or "space" not in stored:
            raise InputError("it holds no network: its description has no space")
        written = build(_Written, stored, strict=False)
        check_classes(written.classes)
        space = space_from_dict(written.space)
        arch = None if written.arch is None else space.arch_from_dict(written.arch)
        return Description(space, arch, written.classes, written.normalization)


def _load_variables(directory: Path, net: Network, arch: Any) -> Tree:
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    like = jax.eval_shape(net.init, jax.random.key(0), image, arch)
    items = ocp.args.Composite(variables=ocp.args.StandardRestore(abstract(like)))
    with _checkpointer() as checkpointer:
        restore = functools.partial(checkpointer.restore, storage.absolute(directory), items)
        restored = readable(directory, restore)
    return restored["variables"]


def abstract(like: Tree) -> Tree:
    """Shapes, dtypes and shardings to restore into; by default on the first local device."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here
        ),
        like,
    )


def readable(path: Path, restore: Callable[[], Any], check: bool = True) -> Any:
    """Runs a restore and turns whatever the storage raises into one line that names the path."""
    if not path.is_dir():
        raise InputError(f"no checkpoint at {path}")
    if check:
        check_seal(path)
    for inner in _read_of(path):  # a pipe would be waited for
        if not storage.is_regular(inner):
            raise InputError(f"checkpoint {path} cannot be read: {inner.name} is no regular file")
    try:
        return restore()
    except Exception as error:  # tensorstore, zarr, JSON and orbax each raise their own
        raise InputError(f"checkpoint {path} cannot be read: {short(error)}") from error


@contextlib.contextmanager
def in_one_line(what: str, unless: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
    """Turns whatever the storage raises inside into one line; what `unless` knows comes through."""
    try:
        yield
    except Exception as error:  # tensorstore, the system and orbax each raise their own
        if unless(error):
            raise
        reason = " ".join(str(error).split())[-200:]  # the cause comes last
        raise OSError(f"{what}: {reason}") from error


def check_room(directory: Path, state: Tree) -> None:
    """Raises `OSError` unless a directory's disk has room for a state."""
    # Found by orbax, a full disk costs pages of tracebacks from threads of its own. It writes the
    # state twice, by process and merged, before it drops the first.
    needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with writing(directory):
        free = storage.free_bytes(directory)
    if free < needed:
        raise OSError(
            f"no space left for a checkpoint in {directory}: {needed / 1e6:.1f} MB are needed,"
            f" {free / 1e6:.1f} MB free; those before it are whole"
        )


# Orbax finds a missing file, not a changed one, and a damaged array makes it print pages; so
# finished checkpoints carry checksums of their files, looked at before anything is restored.


def seal(directory: Path) -> None:
    """Writes the checksums of a finished checkpoint into it, unless it has them."""
    if not (directory / SEAL).exists():
        write_json(directory / SEAL, _checksums(directory))


def check_seal(directory: Path) -> None:
    """Raises `ValueError`, naming the file, if a sealed checkpoint is not as it was written."""
    # What else lies there, such as .DS_Store, is nobody's damage.
    for name, wanted in sorted((_sealed(directory) or {}).items()):
        path = directory / name
        if not path.is_file():
            raise InputError(f"checkpoint {directory} cannot be read: its file {name} is missing")
        if checksum(path) != wanted:
            raise InputError(
                f"checkpoint {directory} cannot be read: its file {name} is altered or truncated"
            )


def _sealed(directory: Path) -> dict[str, str] | None:
    """The checksums by file; None where it was killed between the save and its seal."""
    if not (directory / SEAL).exists():
        return None
    try:
        sealed: dict[str, str] = build(dict[str, str], read_json(directory / SEAL))
        for name in sealed:
            check_inside(SEAL, name)
    except InputError as error:
        raise InputError(f"checkpoint {directory} cannot be read: {SEAL} is damaged") from error
    return sealed


def _read_of(directory: Path) -> Iterable[Path]:
    """The files that a restore may read: those of the seal, and without one all of its items."""
    sealed = _sealed(directory)
    if sealed is not None:
        return [directory / name for name in sealed]
    items = [item for item in map(directory.joinpath, ITEMS) if item.is_dir()]
    return [*directory.glob("_*"), *itertools.chain.from_iterable(map(storage.below, items))]


def _checksums(directory: Path) -> dict[str, str]:
    checksums = {}
    for path in storage.below(directory):
        if storage.is_regular(path) and path.name != SEAL:
            checksums[str(path.relative_to(directory))] = checksum(path)
    return checksums


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
