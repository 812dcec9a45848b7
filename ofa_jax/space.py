"""The search space: which subnets exist, as static descriptions and as arrays.

A `SearchSpace` is static, frozen and hashable: it describes the networks of one family (`families/`
has them). An `Arch` is one of them, as int32 arrays of choice *indices*: it can be traced, stacked
and vmapped, so one compiled program serves every subnet.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.files import shown
from ofa_jax.topology import ALWAYS, Layers, Size

ACTIVATIONS = ("relu", "relu6", "h_swish")
Number = int | float
# More than anybody means; within them, costs are exact in 64 bits.
CHANNELS, BLOCKS, PIXELS, CLASSES = 8192, 200, 4096, 1_000_000
LARGEST = {"kernels": 99, "expands": 20, "depths": BLOCKS, "widths": 10, "resolutions": PIXELS}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Arch:
    """One subnet: indices into the space's ascending choices (or, stacked, a batch of them).

    Archs of the same choices are equal and can be keys of a dict; traced ones cannot be compared.

    Attributes:
      kernel: `[blocks]` int32, index of each elastic block's kernel size.
      expand: `[blocks]` int32, index of each elastic block's expand ratio.
      depth: `[depth genes]` int32, index of each stage's depth; a ResNet's stem comes first.
      width: `[width genes]` int32, index of each width multiplier; None where width is fixed.
    """

    kernel: jax.Array
    expand: jax.Array
    depth: jax.Array
    width: jax.Array | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arch) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        genes = (np.asarray(leaf) for leaf in jax.tree.leaves(self))
        return tuple((leaf.shape, *leaf.ravel().tolist()) for leaf in genes)


class Choices(NamedTuple):
    """Which choices are open, as boolean arrays: data, so that all phases share one compilation.

    Each is `[choices]`, or `[genes, choices]` as `SearchSpace.open_genes` gives it.
    """

    kernel: jax.Array
    expand: jax.Array
    depth: jax.Array
    width: jax.Array | None = None


class Dimension(NamedTuple):
    """One elastic dimension of a space, as the reference writes it.

    `key` is its name in an arch's dict (empty: not written), `values[gene][choice]` what is
    written for each choice. `also` are further values that may be read for a gene, by choice.
    """

    key: str
    values: tuple[tuple[Number, ...], ...]
    also: tuple[Number, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of equally wide blocks; the first one carries the stride.

    `width` is the number of output channels, `act` one of `ACTIVATIONS`, `se` whether the blocks
    have squeeze-and-excitation. The stage has `depth` blocks, and as many more as its depth
    choice says unless `elastic` is false.
    """

    width: int
    stride: int
    act: str = "relu"
    se: bool = False
    depth: int = 0
    elastic: bool = True


class Place(NamedTuple):
    """Where a block is: its name, its stage's index, how many come before it there, its stride."""

    name: str
    stage: int
    position: int
    stride: int


class Block(Protocol):
    """What every family's blocks say of themselves; `position` counts within the stage."""

    @property
    def name(self) -> str:
        """Of its variables."""

    @property
    def stage(self) -> int:
        """The index of its stage."""

    @property
    def position(self) -> int:
        """How many blocks of the stage come before it."""

    @property
    def in_width(self) -> int:
        """The most input channels."""

    @property
    def width(self) -> int:
        """The most output channels."""

    @property
    def variants(self) -> tuple[Self, ...]:
        """What branches switch between: the block with one choice left of each width."""


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds a width to a multiple of `divisor`, never below 90 % of `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace(abc.ABC):
    """One family of subnets; the families add their own widths and their blocks.

    Attributes:
      name: id, as `get_space` takes it.
      stages: the elastic stages.
      kernels: the kernel sizes that every block may have, ascending.
      expands: the expand ratios that every block may have, ascending.
      depths: the depths that every stage may have, ascending.
      widths: the width multipliers of every stage's output, ascending; () fixes the widths.
      resolutions: input resolutions the space is meant for, in pixels.
      num_classes: the number of logits.
      dropout: the share of features dropped before the classifier.
      bn_eps: added to the variance in batch norms.
    """

    name: str
    stages: tuple[Stage, ...]
    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[Number, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    widths: tuple[float, ...] = ()
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4))
    num_classes: int = 1000
    dropout: float = 0.1
    bn_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in ("kernels", "expands", "depths", "widths", "resolutions"):
            values = getattr(self, field)
            if (not values and field != "widths") or list(values) != sorted(set(values)):
                raise InputError(f"{field}={values}: expected ascending numbers")
            if values and (values[0] < 0 or (values[0] == 0 and field != "depths")):
                raise InputError(f"{field}={values}: expected positive numbers")
            if values and values[-1] > LARGEST[field]:
                raise InputError(f"{field}={values}: expected at most {LARGEST[field]}")
        if any(k % 2 == 0 for k in self.kernels):
            raise InputError(f"kernels={self.kernels}: expected odd sizes")
        if not self.stages:
            raise InputError("stages=(): expected one stage or more")
        blocks = sum(depths[-1] for depths in self.stage_depths)
        if blocks > BLOCKS:
            raise InputError(f"stages: {blocks} blocks: expected at most {BLOCKS}")
        for i, (stage, depths) in enumerate(zip(self.stages, self.stage_depths, strict=True)):
            if stage.act not in ACTIVATIONS:
                allowed = ", ".join(ACTIVATIONS)
                raise InputError(f"stages[{i}].act={stage.act!r}: expected one of {allowed}")
            self._check_channels(f"stages[{i}].width", stage.width)
            if stage.stride not in (1, 2):
                raise InputError(f"stages[{i}].stride={stage.stride}: expected 1 or 2")
            if stage.depth < 0:
                raise InputError(f"stages[{i}].depth={stage.depth}: expected at least 0")
            if depths[0] < 1:
                raise InputError(f"stages[{i}] may have {depths[0]} blocks: expected at least 1")
        if not 2 <= self.num_classes <= CLASSES:
            raise InputError(f"num_classes={self.num_classes}: expected 2 to {CLASSES:,}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: expected a rate in [0, 1)")
        if not 1e-12 <= self.bn_eps <= 1:
            raise InputError(f"bn_eps={self.bn_eps}: expected 1e-12 to 1")

    def _check_channels(self, field: str, channels: int, least: int = 1) -> None:
        if not least <= channels <= CHANNELS:
            raise InputError(f"{field}={channels}: expected {least} to {CHANNELS:,} channels")

    # -- static structure ----------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """Every elastic block at full depth, in the order of `Arch.kernel` and `Arch.expand`."""

    @abc.abstractmethod
    def active_blocks(self, arch: Arch) -> tuple[Block, ...]:
        """The blocks of one concrete `arch`, each narrowed to its choice; skipped ones left out."""

    @property
    @abc.abstractmethod
    def layers(self) -> Layers:
        """The largest network, layer by layer: what costs, files and names are folded from."""

    @functools.cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """The elastic dimensions by their field in `Arch`, in its order.

        A stage of fixed depth takes any, as in the reference.
        """
        count = len(self.blocks)
        return {
            "kernel": Dimension("ks", (self.kernels,) * count),
            "expand": Dimension("e", (self.expands,) * count),
            "depth": Dimension("d", self.stage_depths, also=self.depths),
        }

    @functools.cached_property
    def size(self) -> int:
        """The number of distinct subnets at one resolution."""
        per_block = len(self.kernels) * len(self.expands)
        return math.prod(count_blocks(per_block, depths) for depths in self.stage_depths)

    stem_genes = 0  # depth genes in front of the stages' own

    @property
    def reference(self) -> str:
        """What once-for-all calls the family in its files; "" where it does not have it."""
        return ""

    @functools.cached_property
    def places(self) -> tuple[Place, ...]:
        """Where the blocks are, one after the other."""
        return tuple(
            Place(f"stage{number + 1}_block{position + 1}", number, position,
                  stage.stride if position == 0 else 1)
            for number, stage in enumerate(self.stages)
            for position in range(self.stage_depths[number][-1])
        )  # fmt: skip

    @functools.cached_property
    def stage_depths(self) -> tuple[tuple[int, ...], ...]:
        """Per stage, the number of blocks for each depth choice."""
        return tuple(tuple(s.depth + s.elastic * d for d in self.depths) for s in self.stages)

    def active(self, depth: Any) -> Any:
        """`[..., blocks]` booleans, which blocks an arch of such depth genes keeps.

        A NumPy array where `depth` (`Arch.depth`) is concrete.
        """
        keeps = np.asarray(
            [[b.position < depth for depth in self.stage_depths[b.stage]] for b in self.blocks]
        )
        genes = np.asarray([self.stem_genes + b.stage for b in self.blocks])
        xp = jnp if isinstance(depth, jax.core.Tracer) else np
        return xp.asarray(keeps)[np.arange(len(genes)), xp.asarray(depth)[..., genes]]

    def always(self, block: Block) -> bool:
        """Whether every arch keeps the block."""
        return block.position < self.stage_depths[block.stage][0]

    def kept(self, block: Block) -> Size:
        """1 where an arch keeps the block, else 0."""
        if self.always(block):
            return ALWAYS
        keeps = tuple(int(block.position < depth) for depth in self.stage_depths[block.stage])
        return Size(keeps, (("depth", self.stem_genes + block.stage),))

    # -- archs as arrays -----------------------------------------------------------------------

    def open_choices(
        self,
        kernels: Sequence[int] | None = None,
        expands: Sequence[Number] | None = None,
        depths: Sequence[int] | None = None,
        widths: Sequence[float] | None = None,
    ) -> Choices:
        """Opens only these values of each dimension; `None` opens all of them.

        Raises:
          ValueError: a value that is not a choice of this space.
        """
        requested = {"kernels": kernels, "expands": expands, "depths": depths, "widths": widths}
        opened: list[Any] = []
        for field, values in requested.items():
            allowed = getattr(self, field)
            values = allowed if values is None else tuple(values)
            wrong = [v for v in values if v not in allowed]
            if wrong or bool(values) != bool(allowed):
                raise InputError(f"{field}={values}: {self.name} has the choices {allowed} only")
            opened.append(np.asarray([v in values for v in allowed]) if allowed else None)
        return Choices(*opened)

    def open_genes(self, choices: Choices) -> Choices:
        """`[genes, choices]` booleans: what each gene may be under the open `choices`."""
        opened = {
            field: jnp.broadcast_to(mask, (len(self.dimensions[field].values), len(mask)))
            for field, mask in choices._asdict().items()
            if mask is not None
        }
        return Choices(**opened)

    def sample(self, key: jax.Array, choices: Choices | None = None) -> Arch:
        """Draws one arch, uniformly and independently per gene, from the open `choices`."""
        opened = self.open_genes(self.open_choices() if choices is None else choices)
        keys = zip(self.dimensions, jax.random.split(key, len(self.dimensions)), strict=True)
        return Arch(**{field: _uniform(k, getattr(opened, field)) for field, k in keys})

    def largest(self, choices: Choices | None = None) -> Arch:
        """The arch with the largest open choice everywhere."""
        return self._extreme(choices, lambda mask: len(mask) - 1 - jnp.argmax(mask[::-1]))

    def smallest(self, choices: Choices | None = None) -> Arch:
        """The arch with the smallest open choice everywhere."""
        return self._extreme(choices, jnp.argmax)

    def _extreme(self, choices: Choices | None, pick: Callable[[jax.Array], jax.Array]) -> Arch:
        choices = self.open_choices() if choices is None else choices
        return self.everywhere({field: pick(getattr(choices, field)) for field in self.dimensions})

    def everywhere(self, indices: Mapping[str, Any]) -> Arch:
        """The arch with one choice index for each dimension, the same in all its genes."""
        filled = {
            field: jnp.full(len(dimension.values), indices[field], jnp.int32)
            for field, dimension in self.dimensions.items()
        }
        return Arch(**filled)

    # -- archs as values, as the reference writes them -----------------------------------------

    def arch_from_dict(self, values: Mapping[str, Any]) -> Arch:
        """Reads `{"ks": [...], "e": [...], "d": [...]}`; a single number stands for all entries.

        A ResNet has "w" instead of "ks", and its entries are indices. Blocks beyond their stage's
        depth may be `None`: their genes are never used.

        Examples:
          >>> space = get_space("ofa_tiny_d123_e346_k357")
          >>> arch = space.arch_from_dict({"ks": 5, "e": 4, "d": [1, 2, 1]})
          >>> space.arch_to_dict(arch)["ks"]
          [5, None, None, 5, 5, None, 5, None, None]

        Raises:
          ValueError: a missing key, a wrong length or a value outside the choices, by name.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"arch={shown(values)}: expected an object with {self.keys}")
        missing = [d.key for d in self.dimensions.values() if d.key and d.key not in values]
        if missing:
            raise InputError(f"arch lacks {missing}: expected the keys {self.keys}")
        depth = self._indices(self.dimensions["depth"], values, None)
        active = self.active(np.asarray(depth))
        indices = {
            field: self._indices(d, values, active if field in ("kernel", "expand") else None)
            for field, d in self.dimensions.items()
        }
        return Arch(**{field: jnp.asarray(index, jnp.int32) for field, index in indices.items()})

    @property
    def keys(self) -> str:
        """The keys of an arch's dict, as errors name them."""
        return ", ".join(repr(d.key) for d in self.dimensions.values() if d.key)

    def _indices(
        self, dimension: Dimension, arch: Mapping[str, Any], active: Sequence[bool] | None
    ) -> list[int]:
        key, length = dimension.key, len(dimension.values)
        values = arch[key] if key else dimension.values[0][0]
        if isinstance(values, int | float | np.number):
            values = [values] * length
        values = np.asarray(values).tolist() if isinstance(values, np.ndarray) else values
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
            text = isinstance(values, str) or not isinstance(values, Sequence)
            count = shown(values) if text else f"{len(values)} entries"
            raise InputError(f"arch[{key!r}] has {count}: {self.name} has {length}")
        indices = []
        for i, (value, choices) in enumerate(zip(values, dimension.values, strict=True)):
            if value is None and active is not None and not active[i]:
                indices.append(0)
            elif not isinstance(value, bool) and value in choices:
                indices.append(choices.index(value))
            elif not isinstance(value, bool) and value in dimension.also:
                indices.append(dimension.also.index(value))
            else:
                raise InputError(
                    f"arch[{key!r}][{i}]={shown(value)}: {self.name} allows {shown(choices)}"
                )
        return indices

    def arch_to_dict(self, arch: Arch) -> dict[str, list[Any]]:
        """Writes one arch as values; skipped blocks come back as `None`."""
        indices = self.indices(arch)
        written: dict[str, list[Any]] = {}
        active = self.active(np.asarray(indices["depth"]))
        for field, dimension in self.dimensions.items():
            chosen: list[Any] = [
                v[i] for v, i in zip(dimension.values, indices[field], strict=True)
            ]
            if field in ("kernel", "expand"):
                chosen = [v if a else None for v, a in zip(chosen, active, strict=True)]
            if dimension.key:
                written[dimension.key] = chosen
        return written

    def check_single(self, arch: Arch) -> None:
        """Raises `ValueError` unless `arch` is one arch (not a batch) of this space's shape."""
        expected = tuple((len(d.values),) for d in self.dimensions.values())
        shapes = tuple(jnp.shape(a) for a in jax.tree.leaves(arch))
        if shapes != expected:
            raise InputError(f"arch has shapes {shapes}: one arch of {self.name} has {expected}")

    def indices(self, arch: Arch) -> dict[str, list[int]]:
        """The choice indices of one concrete arch by field, as plain numbers."""
        self.check_single(arch)
        return {field: np.asarray(getattr(arch, field)).tolist() for field in self.dimensions}


def _uniform(key: jax.Array, opened: jax.Array) -> jax.Array:
    logits = jnp.where(opened, jnp.float32(0), -jnp.inf)
    return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def stack(archs: Sequence[Arch]) -> Arch:
    """Stacks archs into one batch, `[n, ...]` in every leaf."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *archs)


def count_blocks(per_block: int, depths: Sequence[int]) -> int:
    """How many distinct runs of blocks a stage has, with so many variants of each block."""
    return sum(per_block**depth for depth in set(depths))
