"""The search space: which subnets exist, as static descriptions and as arrays.

A `SearchSpace` is static, frozen and hashable: it describes one family of networks. An `Arch` is
one member of it, as int32 arrays of choice *indices*: it can be traced, stacked and vmapped, so
one compiled program serves every subnet.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS = ("relu", "relu6", "h_swish")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Arch:
    """One subnet: indices into the space's ascending choices (or, stacked, a batch of them).

    Attributes:
      kernel: `[blocks]` int32, index of each elastic block's kernel size.
      expand: `[blocks]` int32, index of each elastic block's expand ratio.
      depth: `[stages]` int32, index of each stage's number of blocks.
    """

    kernel: jax.Array
    expand: jax.Array
    depth: jax.Array


class Choices(NamedTuple):
    """Which choices are open, as boolean arrays: data, so that all phases share one compilation."""

    kernel: jax.Array  # [kernel choices]
    expand: jax.Array  # [expand choices]
    depth: jax.Array  # [depth choices]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of equally wide blocks; the first one carries the stride.

    `width` is the number of output channels, `act` one of `ACTIVATIONS`, `se` whether the blocks
    have squeeze-and-excitation. `depth` 0 makes the number of blocks elastic; another number
    fixes it.
    """

    width: int
    stride: int
    act: str
    se: bool = False
    depth: int = 0


@dataclasses.dataclass(frozen=True)
class Block:
    """The static dimensions of one inverted-residual block; in a subnet every tuple has one entry.

    `mids` and `squeezes` give the middle and squeeze width for each expand choice (`squeezes` is
    empty without SE); `position` counts within the stage.
    """

    name: str
    stage: int
    position: int
    in_width: int
    width: int
    stride: int
    act: str
    kernels: tuple[int, ...]
    mids: tuple[int, ...]
    squeezes: tuple[int, ...] = ()
    inverted: bool = True  # has the 1x1 convolution that expands in_width to mid

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output: stride 1 and equal widths only."""
        return self.stride == 1 and self.in_width == self.width

    @property
    def elastic(self) -> bool:
        """Whether there is more than one kernel size or middle width to choose from."""
        return len(self.kernels) > 1 or len(self.mids) > 1

    def narrow(self, kernel: int, expand: int) -> "Block":
        """The block with one kernel and one expand choice (indices) left."""
        return dataclasses.replace(
            self,
            kernels=(self.kernels[kernel],),
            mids=(self.mids[expand],),
            squeezes=self.squeezes and (self.squeezes[expand],),
        )


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds a width to a multiple of `divisor`, never below 90 % of `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """One family of subnets: inverted residuals with elastic kernel size, expand ratio and depth.

    Attributes:
      name: id, as `get_space` takes it.
      stem: output channels of the first 3x3 convolution; `stem_stride` its stride.
      first: output channels of the one fixed block behind it, `first_act` its activation.
      stages: the elastic stages, each of up to `max(depths)` blocks.
      head: channels of the last convolution; `features` those of the layer before the classifier,
        0 for none. `outer_act` is the activation of the stem and of both.
      kernels, expands, depths: the choices, ascending; each is open to every block or stage.
      resolutions: input heights = widths the space is meant for, in pixels.
      num_classes, dropout, bn_eps: as in any classifier.
    """

    name: str
    stem: int
    first: int
    stages: tuple[Stage, ...]
    head: int
    features: int
    stem_stride: int = 2
    outer_act: str = "h_swish"
    first_act: str = "relu"
    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4))
    num_classes: int = 1000
    dropout: float = 0.1
    bn_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in ("kernels", "expands", "depths", "resolutions"):
            values = getattr(self, field)
            if not values or list(values) != sorted(set(values)) or min(values) < 1:
                raise ValueError(f"{field}={values}: expected ascending positive numbers")
        if any(k % 2 == 0 for k in self.kernels):
            raise ValueError(f"kernels={self.kernels}: expected odd sizes")
        for act in (self.outer_act, self.first_act, *(stage.act for stage in self.stages)):
            if act not in ACTIVATIONS:
                raise ValueError(f"act={act!r}: expected one of {', '.join(ACTIVATIONS)}")
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes}: expected at least 2")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected a rate in [0, 1)")

    # -- static structure --------------------------------------------------------------------

    @functools.cached_property
    def first_block(self) -> Block:
        """The fixed block behind the stem: kernel 3, no expansion, ReLU, no SE."""
        return Block(
            name="first_block",
            stage=-1,
            position=0,
            in_width=self.stem,
            width=self.first,
            stride=1,
            act=self.first_act,
            kernels=(3,),
            mids=(self.stem,),
            inverted=False,
        )

    @functools.cached_property
    def stage_depths(self) -> tuple[tuple[int, ...], ...]:
        """Per stage, the blocks of each depth choice: `depths`, or its own fixed number."""
        return tuple((s.depth,) * len(self.depths) if s.depth else self.depths for s in self.stages)

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every elastic block at full depth, in the order of `Arch.kernel` and `Arch.expand`."""
        blocks = []
        in_width = self.first
        for stage_index, stage in enumerate(self.stages):
            for position in range(self.stage_depths[stage_index][-1]):
                mids = tuple(make_divisible(round(in_width * e)) for e in self.expands)
                block = Block(
                    name=f"stage{stage_index + 1}_block{position + 1}",
                    stage=stage_index,
                    position=position,
                    in_width=in_width,
                    width=stage.width,
                    stride=stage.stride if position == 0 else 1,
                    act=stage.act,
                    kernels=self.kernels,
                    mids=mids,
                    squeezes=tuple(make_divisible(m // 4) for m in mids) if stage.se else (),
                )
                blocks.append(block)
                in_width = stage.width
        return tuple(blocks)

    def active_blocks(self, arch: Arch) -> tuple[Block, ...]:
        """The blocks of one concrete `arch`, each narrowed to its choice; skipped ones left out."""
        kernel, expand, depth = (np.asarray(a).tolist() for a in jax.tree.leaves(arch))
        return tuple(
            block.narrow(kernel[i], expand[i])
            for i, block in enumerate(self.blocks)
            if block.position < self.stage_depths[block.stage][depth[block.stage]]
        )

    @functools.cached_property
    def size(self) -> int:
        """The number of distinct subnets at one resolution."""
        per_block = len(self.kernels) * len(self.expands)
        return math.prod(sum(per_block**d for d in set(ds)) for ds in self.stage_depths)

    # -- archs as arrays ---------------------------------------------------------------------

    def open_choices(
        self,
        kernels: Sequence[int] | None = None,
        expands: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
    ) -> Choices:
        """Open only the given values of each dimension; `None` opens all of them.

        Raises:
          ValueError: a value that is not a choice of this space.
        """
        opened = []
        for field, values in (("kernels", kernels), ("expands", expands), ("depths", depths)):
            allowed = getattr(self, field)
            values = allowed if values is None else tuple(values)
            wrong = [v for v in values if v not in allowed]
            if wrong or not values:
                raise ValueError(
                    f"{field}={tuple(values)}: {self.name} has the choices {allowed} only"
                )
            opened.append(jnp.asarray([v in values for v in allowed]))
        return Choices(*opened)

    def sample(self, key: jax.Array, choices: Choices | None = None) -> Arch:
        """Draws one arch, uniformly and independently per block and stage, from open `choices`."""
        choices = self.open_choices() if choices is None else choices
        lengths = (len(self.blocks), len(self.blocks), len(self.stages))
        keys = jax.random.split(key, 3)
        return Arch(*map(_uniform, keys, choices, lengths))

    def largest(self, choices: Choices | None = None) -> Arch:
        """The arch with the largest open choice everywhere."""
        choices = self.open_choices() if choices is None else choices
        return self._constant([len(c) - 1 - jnp.argmax(c[::-1]) for c in choices])

    def smallest(self, choices: Choices | None = None) -> Arch:
        """The arch with the smallest open choice everywhere."""
        choices = self.open_choices() if choices is None else choices
        return self._constant([jnp.argmax(c) for c in choices])

    def _constant(self, indices: Sequence[jax.Array]) -> Arch:
        lengths = (len(self.blocks), len(self.blocks), len(self.stages))
        return Arch(*(jnp.full(n, i, jnp.int32) for n, i in zip(lengths, indices, strict=True)))

    # -- archs as values, as the reference writes them ------------------------------------------

    def arch_from_dict(self, values: Mapping[str, Any]) -> Arch:
        """Reads `{"ks": [...], "e": [...], "d": [...]}`; a single number stands for all entries.

        Blocks beyond their stage's depth may be `None`: their genes are never used.

        Raises:
          ValueError: a missing key, a wrong length or a value outside the choices, by name.
        """
        missing = [k for k in ("ks", "e", "d") if k not in values]
        if missing:
            raise ValueError(f"arch lacks {missing}: expected the keys 'ks', 'e' and 'd'")
        # A stage of fixed depth may come with any depth, as the reference samples one for it.
        any_depth = [(s.depth, *self.depths) if s.depth else self.depths for s in self.stages]
        depth = self._indices("d", values["d"], any_depth, [False] * len(self.stages))
        depth = [0 if s.depth else i for s, i in zip(self.stages, depth, strict=True)]
        skipped = [b.position >= self.stage_depths[b.stage][depth[b.stage]] for b in self.blocks]
        count = len(self.blocks)
        kernel = self._indices("ks", values["ks"], [self.kernels] * count, skipped)
        expand = self._indices("e", values["e"], [self.expands] * count, skipped)
        return Arch(*(jnp.asarray(a, jnp.int32) for a in (kernel, expand, depth)))

    def _indices(
        self, key: str, values: Any, allowed: Sequence[tuple[int, ...]], skipped: Sequence[bool]
    ) -> list[int]:
        length = len(allowed)
        if isinstance(values, int | float | np.number):
            values = [values] * length
        values = np.asarray(values).tolist() if isinstance(values, np.ndarray) else values
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != length:
            count = len(values) if isinstance(values, Sequence) else repr(values)
            raise ValueError(f"arch[{key!r}] has {count} entries: {self.name} has {length}")
        indices = []
        for i, (value, choices, skip) in enumerate(zip(values, allowed, skipped, strict=True)):
            if skip and value is None:
                indices.append(0)
            elif isinstance(value, bool) or value not in choices:
                raise ValueError(f"arch[{key!r}][{i}]={value!r}: {self.name} allows {choices}")
            else:
                indices.append(choices.index(value))
        return indices

    def arch_to_dict(self, arch: Arch) -> dict[str, list]:
        """Writes one arch as values; skipped blocks come back as `None`."""
        self.check_single(arch)
        kernel, expand, depth = (np.asarray(a).tolist() for a in jax.tree.leaves(arch))
        depths = [ds[i] for ds, i in zip(self.stage_depths, depth, strict=True)]
        active = [b.position < depths[b.stage] for b in self.blocks]
        return {
            "ks": [self.kernels[i] if a else None for i, a in zip(kernel, active, strict=True)],
            "e": [self.expands[i] if a else None for i, a in zip(expand, active, strict=True)],
            "d": depths,
        }

    def check_single(self, arch: Arch) -> None:
        """Raises `ValueError` unless `arch` is one arch (not a batch) of this space's shape."""
        expected = ((len(self.blocks),), (len(self.blocks),), (len(self.stages),))
        shapes = tuple(jnp.shape(a) for a in jax.tree.leaves(arch))
        if shapes != expected:
            raise ValueError(f"arch has shapes {shapes}: one arch of {self.name} has {expected}")

    # -- as plain data ---------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SearchSpace":
        """Reads what `to_dict` wrote, tuples having become lists in JSON.

        Raises:
          ValueError: a field that is unknown or missing.
        """
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in data.items()
        }
        try:
            fields["stages"] = tuple(Stage(**s) for s in fields["stages"])
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not the description of a search space: {error}") from error


def _uniform(key: jax.Array, open_: jax.Array, length: int) -> jax.Array:
    logits = jnp.where(open_, 0.0, -jnp.inf)
    return jax.random.categorical(key, logits, shape=(length,)).astype(jnp.int32)


def stack(archs: Sequence[Arch]) -> Arch:
    """Stacks archs into one batch, `[n, ...]` in every leaf."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *archs)


# -- the spaces ------------------------------------------------------------------------------------


def _mobilenet_v3(name: str, width_mult: float, **kwargs: Any) -> SearchSpace:
    # Base widths, strides, activations and SE of Cai et al. 2020; `ofa_mbv3.py` in the reference.
    width = functools.partial(_scaled, width_mult)
    stages = (
        Stage(width(24), stride=2, act="relu"),
        Stage(width(40), stride=2, act="relu", se=True),
        Stage(width(80), stride=2, act="h_swish"),
        Stage(width(112), stride=1, act="h_swish", se=True),
        Stage(width(160), stride=2, act="h_swish", se=True),
    )
    return SearchSpace(
        name=name,
        stem=width(16),
        first=width(16),
        stages=stages,
        head=width(960),
        features=width(1280),
        **kwargs,
    )


def _scaled(width_mult: float, base: int) -> int:
    return make_divisible(base * width_mult)


def _proxyless(name: str, width_mult: float, **kwargs: Any) -> SearchSpace:
    # ProxylessNAS stage widths; `ofa_proxyless.py` in the reference. ReLU6 throughout, no SE, a
    # last stage of one block, and no layer between pooling and classifier.
    width = functools.partial(_scaled, width_mult)
    widths, strides = (24, 40, 80, 96, 192), (2, 2, 2, 1, 2)
    elastic = (Stage(width(w), s, "relu6") for w, s in zip(widths, strides, strict=True))
    return SearchSpace(
        name=name,
        stem=width(32),
        first=width(16),
        stages=(*elastic, Stage(width(320), stride=1, act="relu6", depth=1)),
        head=width(1280),
        features=0,
        outer_act="relu6",
        first_act="relu6",
        bn_eps=1e-3,
        **kwargs,
    )


def _tiny(name: str, **kwargs: Any) -> SearchSpace:
    # Ours, for images of 16 to 32 px: 3 stages of up to 3 blocks, a stem that keeps every pixel,
    # and a last stage that stays at a quarter of the input, so that a digit is never one pixel.
    stages = (
        Stage(24, stride=2, act="relu"),
        Stage(40, stride=2, act="h_swish", se=True),
        Stage(64, stride=1, act="h_swish", se=True),
    )
    return SearchSpace(
        name=name,
        stem=16,
        stem_stride=1,
        first=16,
        stages=stages,
        head=192,
        features=256,
        **{"depths": (1, 2, 3), "resolutions": (16, 20, 24, 28, 32), **kwargs},
    )


_SPACES: dict[str, Callable[..., SearchSpace]] = {
    "ofa_mbv3_d234_e346_k357_w1.0": functools.partial(_mobilenet_v3, width_mult=1.0),
    "ofa_mbv3_d234_e346_k357_w1.2": functools.partial(
        _mobilenet_v3, width_mult=1.2, resolutions=tuple(range(160, 225, 4))
    ),
    "ofa_proxyless_d234_e346_k357_w1.3": functools.partial(_proxyless, width_mult=1.3),
    "ofa_tiny_d123_e346_k357": _tiny,
}


def list_spaces() -> tuple[str, ...]:
    """The ids that `get_space` knows."""
    return tuple(_SPACES)


def get_space(name: str, **overrides: Any) -> SearchSpace:
    """A space by id, with fields such as `num_classes`, `dropout` or `depths` replaced.

    Raises:
      ValueError: an unknown id or field.
    """
    if name not in _SPACES:
        raise ValueError(f"space {name!r} is unknown: expected one of {', '.join(_SPACES)}")
    fields = [f.name for f in dataclasses.fields(SearchSpace)]
    unknown = [k for k in overrides if k not in fields or k == "name"]
    if unknown:
        raise ValueError(f"space field {unknown[0]!r} is unknown: expected one of {fields}")
    space = _SPACES[name](name)
    return dataclasses.replace(space, **overrides) if overrides else space
