"""Latency of a subnet as the sum of its parts', looked up in a table of a device.

The reference's tables (one YAML a resolution) and our own (one JSON file, `build_latency_table`)
have the same keys: what a part does, `expanded_conv-input:28x28x40-output:14x14x80-expand:240-...`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from ofa_jax.errors import InputError
from ofa_jax.files import naming, read_object, read_text, short, shown
from ofa_jax.plain import build
from ofa_jax.space import PIXELS, Arch, SearchSpace
from ofa_jax.spaces import Bottleneck, InvertedResidual, MobileNetSpace, ResNetSpace, Stem

UNIT = "ms"


class Piece(NamedTuple):
    """One entry of a table: its key, and what it is the time of.

    `layer` is a block or stem with one choice of each dimension left, or the name of a layer
    outside the blocks; its input is `size` x `size` x `channels`.
    """

    key: str
    layer: Any
    size: int
    channels: int


class Part(NamedTuple):
    """One part of a net: a `Piece` for each combination of its genes' choices.

    `genes` are (field of `Arch`, index), `pieces` an object array with an axis for each of them,
    `block` the part's index in `space.blocks` if it is one that can be skipped.
    """

    genes: tuple[tuple[str, int], ...]
    pieces: np.ndarray
    block: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyTable:
    """`table(arch, resolution)` is milliseconds: exact for concrete archs, float32 if traced.

    Attributes:
      space: whose subnets it knows.
      source: the file or directory it was read from.
      milliseconds: of each key, by resolution.
      about: batch size, dtype, machine and versions, as the file says.
    """

    space: SearchSpace
    source: str
    milliseconds: Mapping[int, Mapping[str, float]]
    about: Mapping[str, Any]

    def __call__(self, arch: Arch, resolution: Any) -> Any:
        """Milliseconds of one arch; NaN at a traced resolution that is not in the table.

        Raises:
          ValueError: a concrete resolution that is not in the table.
        """
        traced = any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves((arch, resolution)))
        if not isinstance(resolution, jax.core.Tracer):
            self.check(int(resolution))
        xp = jnp if traced else np
        table = self._flat
        fields = [xp.asarray(getattr(arch, field)) for field in self.space.dimensions]
        genes = xp.concatenate([*fields, xp.zeros(1, fields[0].dtype)])  # the last one: no gene
        index = table.offsets + (table.strides * genes[table.genes]).sum(-1, dtype=np.int32)
        known = xp.asarray(table.resolutions, np.int32) == resolution
        row = known.argmax().astype(np.int32)
        values = xp.asarray(table.values, np.float32 if traced else np.float64)
        found = values.reshape(-1)[row * table.values.shape[1] + index]
        active = xp.asarray(self.space.active(arch.depth))
        kept = xp.concatenate([active, xp.ones(1, bool)])[table.blocks]
        total = xp.where(kept, found, 0).sum()
        return xp.where(known.any(), total, np.nan) if traced else float(total)

    def check(self, resolution: int) -> None:
        """Raises `ValueError` unless the table has the resolution."""
        if resolution not in self.milliseconds:
            raise InputError(
                f"{self.source} has no resolution {resolution}: it has {sorted(self.milliseconds)}"
            )

    @functools.cached_property
    def _flat(self) -> "_Flat":
        return _flatten(self.space, self.milliseconds, self.source)


class _Flat(NamedTuple):
    """The table as arrays: a part's key is at offset + the sum of stride x gene."""

    resolutions: tuple[int, ...]
    values: np.ndarray  # [resolutions, keys] milliseconds
    offsets: np.ndarray  # [parts]
    strides: np.ndarray  # [parts, 4]
    genes: np.ndarray  # [parts, 4], of the arch's fields one after the other, and a zero
    blocks: np.ndarray  # [parts], of the space's blocks, and one that is always there


def _flatten(
    space: SearchSpace, milliseconds: Mapping[int, Mapping[str, float]], source: str
) -> _Flat:
    starts, total = {}, 0
    for field, dimension in space.dimensions.items():
        starts[field] = total
        total += len(dimension.values)
    rows, offsets, strides, genes, blocks = [], [], [], [], []
    for resolution, table in milliseconds.items():
        row: list[float] = []
        for part in parts(space, resolution):
            offsets.append(len(row))
            shape = part.pieces.shape
            strides.append([int(np.prod(shape[i + 1 :])) for i in range(len(shape))])
            genes.append([starts[field] + index for field, index in part.genes])
            blocks.append(len(space.blocks) if part.block is None else part.block)
            row += [_look_up(table, piece.key, resolution, source) for piece in part.pieces.flat]
        rows.append(row)
    count = len(offsets) // len(rows)  # every resolution has the same parts
    padded = [[*s, *[0] * (4 - len(s))] for s in strides[:count]]
    pointed = [[*g, *[total] * (4 - len(g))] for g in genes[:count]]
    places = (offsets[:count], padded, pointed, blocks[:count])
    return _Flat(tuple(milliseconds), np.asarray(rows), *(np.asarray(p, np.int32) for p in places))


def _look_up(table: Mapping[str, float], key: str, resolution: int, source: str) -> float:
    if key not in table:
        raise InputError(f"{source} has no key {key!r} at resolution {resolution}")
    return table[key]


# -- the parts of a net --------------------------------------------------------------------------


def parts(space: SearchSpace, resolution: int) -> Iterator[Part]:
    """What a net of the space consists of at one resolution."""
    if isinstance(space, ResNetSpace):
        return _resnet_parts(space, resolution)
    assert isinstance(space, MobileNetSpace)
    return _mobilenet_parts(space, resolution)


def _out(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _shape(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def _pieces(shape: tuple[int, ...], of: Callable[..., Piece]) -> np.ndarray:
    """An object array of `of(*indices)`."""
    array = np.empty(shape, object)
    for indices in np.ndindex(*shape):
        array[indices] = of(*indices)
    return array


def _fixed(kind: str, layer: str, size: int, channels: int, out: str) -> Part:
    piece = Piece(f"{kind}-input:{_shape(size, channels)}-output:{out}", layer, size, channels)
    return Part((), _pieces((), lambda: piece))


def _mobilenet_parts(space: MobileNetSpace, resolution: int) -> Iterator[Part]:
    size = _out(resolution, space.stem_stride)
    yield _fixed("Conv", "stem", resolution, 3, _shape(size, space.stem))
    first = _residual(space.first_block, size)
    yield Part((), _pieces((), lambda: first))
    for i, block in enumerate(space.blocks):
        of = functools.partial(_narrow_residual, block, size)
        shape = (len(block.kernels), len(block.mids))
        yield Part((("kernel", i), ("expand", i)), _pieces(shape, of), i)
        size = _out(size, block.stride)
    last, head, features = space.stages[-1].width, space.head, space.features
    yield _fixed("Conv_1", "head", size, last, _shape(size, head))
    yield _fixed("AvgPool2D", "pool", size, head, _shape(1, head))
    if features:
        yield _fixed("Conv_2", "features", 1, head, _shape(1, features))
    yield _fixed("Logits", "classifier", 1, features or head, str(space.num_classes))


def _narrow_residual(block: InvertedResidual, size: int, kernel: int, mid: int) -> Piece:
    return _residual(block.narrow(kernel, mid), size)


def _residual(block: InvertedResidual, size: int) -> Piece:
    """An inverted residual with the reference's key (`latency_table.py`)."""
    sides = (_shape(size, block.in_width), _shape(_out(size, block.stride), block.width))
    key = (
        f"expanded_conv-input:{sides[0]}-output:{sides[1]}-expand:{block.mids[0]}"
        f"-kernel:{block.kernels[0]}-stride:{block.stride}-idskip:{int(block.residual)}"
        f"-se:{int(bool(block.squeezes))}-hs:{int(block.act == 'h_swish')}"
    )
    return Piece(key, block, size, block.in_width)


def _resnet_parts(space: ResNetSpace, resolution: int) -> Iterator[Part]:
    size, widths = _out(_out(resolution, 2), 2), len(space.widths)
    stem = functools.partial(_stem, space, resolution, size)
    genes = (("width", 0), ("width", 1), ("depth", 0))
    yield Part(genes, _pieces((widths, widths, len(space.depths)), stem))
    for i, block in enumerate(space.blocks):
        genes = (("width", space.in_gene(block)), ("width", block.stage + 2), ("expand", i))
        of = functools.partial(_bottleneck, block, size)
        yield Part(genes, _pieces((widths, widths, len(space.expands)), of), i)
        size = _out(size, block.stride)
    last = functools.partial(_resnet_head, space, size)
    yield Part((("width", len(space.stages) + 1),), _pieces((widths,), last))


def _stem(space: ResNetSpace, resolution: int, out: int, mid: int, width: int, depth: int) -> Piece:
    full, residual = space.stem_block, depth == len(space.depths) - 1
    stem = Stem((full.mids[mid],), (full.widths[width],), residual)
    key = (f"stem-input:{_shape(resolution, 3)}-output:{_shape(out, stem.widths[0])}"
           f"-mid:{stem.mids[0]}-residual:{int(residual)}")  # fmt: skip
    return Piece(key, stem, resolution, 3)


def _bottleneck(block: Bottleneck, size: int, in_width: int, width: int, expand: int) -> Piece:
    # Where nothing is projected one gene is both: the other combinations are never looked up.
    narrow = block.narrow(in_width if block.projected else width, width, expand)
    key = (
        f"bottleneck-input:{_shape(size, narrow.in_widths[0])}"
        f"-output:{_shape(_out(size, block.stride), narrow.width)}-mid:{narrow.mids[0][0]}"
        f"-stride:{block.stride}-projected:{int(block.projected)}"
    )
    return Piece(key, narrow, size, narrow.in_widths[0])


def _resnet_head(space: ResNetSpace, size: int, width: int) -> Piece:
    channels = space.blocks[-1].widths[width]
    key = f"Logits-input:{_shape(size, channels)}-output:{space.num_classes}"
    return Piece(key, "pooled classifier", size, channels)


# -- files -----------------------------------------------------------------------------------------


def load_latency_table(path: str | Path, space: SearchSpace) -> LatencyTable:
    """Reads a latency table: `table(arch, resolution)` in milliseconds.

    Args:
      path: a directory of the reference's `<resolution>_lookup_table.yaml`, or a JSON file that
        `build_latency_table` wrote.
      space: whose subnets will be asked for.

    Raises:
      ValueError: no table there; a key, resolution or unit missing, by name; not milliseconds.
    """
    path = Path(path)
    milliseconds, about = _read_yamls(path) if path.is_dir() else _read_json(path)
    table = LatencyTable(space, str(path), milliseconds, about)
    table._flat  # noqa: B018  looks every key up
    return table


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
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tables = {}
    for resolution, path in numbered:
        text = read_text(path)
        try:
            data = yaml.load(text, Loader=loader)
        except Exception as error:  # also of dates and numbers that are none
            raise InputError(f"{path} is not YAML: {short(error)}") from error
        with naming(path):
            entries = build(dict[str, _Theirs], data, "table", strict=False)
        tables[resolution] = {key: entry.mean for key, entry in entries.items()}
    return tables, {"unit": UNIT, "batch_size": 1}


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
