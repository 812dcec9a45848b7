"""Latency of a subnet as the sum of its parts', looked up in a table of a device.

The reference's tables (one YAML a resolution) and our own (one JSON file, `build_latency_table`)
have the same keys: what a part does, `expanded_conv-input:28x28x40-output:14x14x80-expand:240-...`.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from ofa_jax.errors import InputError, foreign
from ofa_jax.files import naming, read_object, read_text, short, shown
from ofa_jax.plain import build
from ofa_jax.space import PIXELS, Arch, SearchSpace
from ofa_jax.storage import as_path
from ofa_jax.topology import Add, Conv, Gene, Layer, Layers, Size, Value, narrow
from ofa_jax.topology import Part as PartOfNet

UNIT = "ms"


class Piece(NamedTuple):
    """One entry of a table: its key, and what it is the time of.

    `layers` have one choice of each dimension left; their input is `size` x `size` x `channels`.
    """

    key: str
    layers: Layers
    size: int
    channels: int


class Part(NamedTuple):
    """One part of a net: a `Piece` for each combination of its genes' choices.

    `genes` are (field of `Arch`, index), `pieces` an object array with an axis for each of them,
    `block` the part's index in `space.blocks` if it is one that can be skipped.
    """

    genes: tuple[Gene, ...]
    pieces: np.ndarray
    block: int | None = None


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
    """`table(arch, resolution)` is milliseconds: exact for concrete archs, float32 if traced.

    A pytree of its `values`; `source` and `about` do not go through transformations.

    Attributes:
      space: whose subnets it knows.
      resolutions: pixels that it knows.
      values: `[resolutions, pieces]` milliseconds, in the order of `parts`.
      source: the file or directory it was read from.
      about: batch size, dtype, machine and versions, as the file says.
    """

    space: SearchSpace
    resolutions: tuple[int, ...]
    values: Any
    source: str
    about: Mapping[str, Any]

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, ...]]:
        """The `values`, and what a program is compiled for."""
        return (self.values,), (self.space, self.resolutions)

    @classmethod
    def tree_unflatten(cls, known: tuple[Any, ...], children: tuple[Any]) -> "LatencyTable":
        """The inverse of `tree_flatten`."""
        return cls(known[0], known[1], children[0], "the latency table", {})

    def __call__(self, arch: Arch, resolution: Any) -> Any:
        """Milliseconds of one arch; NaN at a traced resolution that is not in the table.

        Raises:
          ValueError: a concrete resolution that is not in the table.
        """
        leaves = jax.tree.leaves((self.values, arch, resolution))
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        if not isinstance(resolution, jax.core.Tracer):
            self.check(int(resolution))
        xp = jnp if traced else np
        places = _places(self.space)
        fields = [xp.asarray(getattr(arch, field)) for field in self.space.dimensions]
        genes = xp.concatenate([*fields, xp.zeros(1, fields[0].dtype)])  # the last one: no gene
        index = places.offsets + (places.strides * genes[places.genes]).sum(-1, dtype=np.int32)
        known = xp.asarray(self.resolutions, np.int32) == resolution
        row = known.argmax().astype(np.int32)
        values = xp.asarray(self.values, np.float32 if traced else np.float64)
        entry_times = values.reshape(-1)[row * values.shape[1] + index]
        active = xp.asarray(self.space.active(arch.depth))
        kept = xp.concatenate([active, xp.ones(1, bool)])[places.blocks]
        total = xp.where(kept, entry_times, 0).sum()
        return xp.where(known.any(), total, np.nan) if traced else float(total)

    def check(self, resolution: int) -> None:
        """Raises `ValueError` unless the table has the resolution."""
        if resolution not in self.resolutions:
            raise InputError(
                f"{self.source} has no resolution {resolution}: it has {sorted(self.resolutions)}"
            )


def latency_table(
    space: SearchSpace,
    milliseconds: Mapping[int, Mapping[str, float]],
    source: str,
    about: Mapping[str, Any],
) -> LatencyTable:
    """The table of these milliseconds of each key, by resolution.

    Raises:
      ValueError: a key of the space is missing, by name.
    """
    rows = [
        [
            _look_up(table, piece.key, resolution, source)
            for part in parts(space, resolution)
            for piece in part.pieces.flat
        ]
        for resolution, table in milliseconds.items()
    ]
    return LatencyTable(space, tuple(milliseconds), np.asarray(rows), source, about)


class _Places(NamedTuple):
    """Where a row has each part's pieces: at offset + the sum of stride x gene."""

    offsets: np.ndarray  # [parts]
    strides: np.ndarray  # [parts, genes]
    genes: np.ndarray  # [parts, genes], of the arch's fields one after the other, and a zero
    blocks: np.ndarray  # [parts], of the space's blocks, and one that is always there


@functools.cache
def _places(space: SearchSpace) -> _Places:
    starts, total = {}, 0
    for field, dimension in space.dimensions.items():
        starts[field] = total
        total += len(dimension.values)
    offsets, strides, genes, blocks, count = [], [], [], [], 0
    for part in parts(space, space.resolutions[0]):  # the same at any
        offsets.append(count)
        shape = part.pieces.shape
        strides.append([int(np.prod(shape[i + 1 :])) for i in range(len(shape))])
        genes.append([starts[field] + index for field, index in part.genes])
        blocks.append(len(space.blocks) if part.block is None else part.block)
        count += part.pieces.size
    most = max(map(len, genes))
    padded = [[*s, *[0] * (most - len(s))] for s in strides]
    pointed = [[*g, *[total] * (most - len(g))] for g in genes]
    return _Places(*(np.asarray(p, np.int32) for p in (offsets, padded, pointed, blocks)))


def _look_up(table: Mapping[str, float], key: str, resolution: int, source: str) -> float:
    if key not in table:
        raise InputError(f"{source} has no key {key!r} at resolution {resolution}")
    return table[key]


# -- the parts of a net --------------------------------------------------------------------------


def parts(space: SearchSpace, resolution: int) -> Iterator[Part]:
    """What a net of the space consists of at one resolution."""
    for part, layers in itertools.groupby(space.layers, lambda layer: layer.part):
        yield _part(part, tuple(layers), resolution)


def _part(part: PartOfNet, layers: Layers, resolution: int) -> Part:
    sizes = [size for layer in layers for size in _chosen(layer)]
    counts: dict[Gene, int] = {}
    for size in sizes:
        counts |= zip(size.genes, np.shape(size.values), strict=True)
    pieces = np.empty(tuple(counts.values()), object)
    for indices in np.ndindex(*pieces.shape):
        pieces[indices] = _piece(part, layers, dict(zip(counts, indices, strict=True)), resolution)
    return Part(tuple(counts), pieces, part.block)


def _chosen(layer: Layer) -> tuple[Size, ...]:
    """What distinguishes the layer's variants; whether a block is skipped is the arch's matter."""
    return layer.sizes if layer.part.block is not None else (*layer.sizes, layer.kept)


def _piece(part: PartOfNet, layers: Layers, choices: Mapping[Gene, int], resolution: int) -> Piece:
    def choose(size: Size) -> int:
        values: Any = size.values
        for gene in size.genes:
            values = values[choices[gene]] if gene in choices else values[-1]
        return int(values)

    narrowed = narrow(layers, choose)
    first, last = narrowed[0], narrowed[-1]
    convs = [layer.operation for layer in narrowed if isinstance(layer.operation, Conv)]
    key = part.key.format(
        input=_shape(first.source, resolution),
        output=_shape(last.output, resolution),
        mid=first.output.channels.values,
        kernel=max((conv.kernel.most for conv in convs), default=1),
        residual=int(any(isinstance(layer.operation, Add) for layer in narrowed)),
    )
    return Piece(key, narrowed, first.source.side(resolution), first.source.channels.most)


def _shape(value: Value, resolution: int) -> str:
    side = value.side(resolution)
    return f"{side}x{side}x{value.channels.values}"


# -- files -----------------------------------------------------------------------------------------


def load_latency_table(path: str | Path, space: SearchSpace) -> LatencyTable:
    """Reads a latency table: `table(arch, resolution)` in milliseconds.

    Args:
      path: a directory of the reference's `<resolution>_lookup_table.yaml`, or a JSON file that
        `build_latency_table` wrote.
      space: whose subnets will be looked up.

    Raises:
      ValueError: no table there; a key, resolution or unit missing, by name; not milliseconds.
    """
    path = as_path(path)
    milliseconds, about = _read_yamls(path) if path.is_dir() else _read_json(path)
    return latency_table(space, milliseconds, str(path), about)


MOST_MS = 1e9  # of one entry: more than a week


@dataclasses.dataclass(frozen=True)
class _Ours:
    """An entry of our tables, among other fields."""

    median: float

    def __post_init__(self) -> None:
        _check_ms("median", self.median)


@dataclasses.dataclass(frozen=True)
class _Theirs:
    """An entry of the reference's tables, among other fields."""

    mean: float

    def __post_init__(self) -> None:
        _check_ms("mean", self.mean)


@dataclasses.dataclass(frozen=True)
class _File:
    """A table of ours, among what it says of the machine."""

    unit: str
    resolutions: dict[str, dict[str, _Ours]]
    factor: float = 1.0  # between a net and the sum of its blocks, alone

    def __post_init__(self) -> None:
        if self.unit != UNIT:
            raise InputError(f"unit={shown(self.unit)}: expected {UNIT!r}")
        if not 1e-3 <= self.factor <= 1e3:
            raise InputError(f"factor={self.factor}: expected 0.001 to 1000")
        if not self.resolutions or not all(map(_is_pixels, self.resolutions)):
            raise InputError(f"resolutions: expected an object of tables by pixels, 1 to {PIXELS}")


def _check_ms(field: str, value: float) -> None:
    if not 0 <= value <= MOST_MS:
        raise InputError(f"{field}={value}: expected 0 to {MOST_MS:.0e} ms")


def _is_pixels(text: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,3}", text) is not None and int(text) <= PIXELS


def _read_yamls(directory: Path) -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    suffix = "_lookup_table.yaml"
    files = {p.name.removesuffix(suffix): p for p in directory.glob(f"*{suffix}")}
    numbered = sorted((int(name), path) for name, path in files.items() if _is_pixels(name))
    if not numbered:
        raise InputError(f"{directory} has no table: expected <resolution>{suffix}")
    tables = {}
    for resolution, path in numbered:
        data = _read_yaml(path)
        with naming(path):
            entries = build(dict[str, _Theirs], data, "table", strict=False)
        tables[resolution] = {key: entry.mean for key, entry in entries.items()}
    return tables, {"unit": UNIT, "batch_size": 1}


def _read_yaml(path: Path) -> Any:
    text = read_text(path)
    with foreign(lambda error: f"{path} is not YAML: {short(error)}"):
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read_json(path: Path) -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    if not path.exists():
        raise InputError(f"no latency table at {path}")
    with naming(path):
        about = read_object(path, "unit", "resolutions")
        table = build(_File, about, strict=False)
    tables = {
        int(resolution): {key: table.factor * entry.median for key, entry in entries.items()}
        for resolution, entries in table.resolutions.items()
    }
    del about["resolutions"]
    return tables, about
