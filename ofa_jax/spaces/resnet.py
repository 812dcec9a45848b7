"""The space of bottleneck residuals, ResNet-D: elastic depth, expand ratio, width and stem."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax.numpy as jnp

from ofa_jax.errors import InputError
from ofa_jax.space import (
    Arch,
    Choices,
    Dimension,
    SearchSpace,
    count_blocks,
    make_divisible,
)


@dataclasses.dataclass(frozen=True)
class Stem:
    """Three 3x3 convolutions, the middle one a residual that may be skipped.

    `mids` and `widths` give the channels after the first two and after the third, for each width
    choice; in a subnet each has one entry.
    """

    mids: tuple[int, ...]
    widths: tuple[int, ...]
    residual: bool = True


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """The static dimensions of one block; in a subnet every tuple has one entry.

    `in_widths` and `widths` give the input and output channels for each width choice of the stage
    before and of its own; `mids[width][expand]` the middle ones. `position` counts in the stage.
    """

    name: str
    stage: int
    position: int
    in_widths: tuple[int, ...]
    widths: tuple[int, ...]
    stride: int
    act: str
    mids: tuple[tuple[int, ...], ...]

    @property
    def projected(self) -> bool:
        """Whether the shortcut needs a 1x1 convolution: a stage's first block."""
        return self.position == 0

    @property
    def in_width(self) -> int:
        """The most input channels."""
        return self.in_widths[-1]

    @property
    def width(self) -> int:
        """The most output channels."""
        return self.widths[-1]

    @property
    def variants(self) -> tuple["Bottleneck", ...]:
        """The block at each output width with every middle width in turn.

        Its input is as wide as its output, or the widest there is where another stage made it.
        Equal blocks have equal ones.
        """
        position = min(self.position, 1)
        anonymous = dataclasses.replace(self, name="", stage=0, position=position)
        choices = itertools.product(range(len(self.widths)), range(len(self.mids[0])))
        widest = len(self.in_widths) - 1
        return tuple(
            anonymous.narrow(widest if self.projected else width, width, expand)
            for width, expand in choices
        )

    @property
    def elastic(self) -> bool:
        """Whether there is more than one output or middle width to choose from."""
        return len(self.widths) > 1 or len(self.mids[0]) > 1

    def narrow(self, in_width: int, width: int, expand: int) -> "Bottleneck":
        """The block with one choice (index) of each dimension left."""
        return dataclasses.replace(
            self,
            in_widths=(self.in_widths[in_width],),
            widths=(self.widths[width],),
            mids=((self.mids[width][expand],),),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetSpace(SearchSpace):
    """Bottlenecks after a deep stem; every width follows a multiplier of its own stage.

    The genes of `Arch.width` are the stem's middle, the stem's output, then the stages; those of
    `Arch.depth` the stem, whose residual is there only at the largest choice, then the stages.
    Source: `ofa_resnets.py` of the reference.

    Attributes:
      stem: output channels of the stem at multiplier 1; its first convolution has half of them.
    """

    stem: int
    kernels: tuple[int, ...] = (3,)
    expands: tuple[float, ...] = (0.2, 0.25, 0.35)
    depths: tuple[int, ...] = (0, 1, 2)
    widths: tuple[float, ...] = (0.65, 0.8, 1.0)

    stem_genes = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernels != (3,):
            raise InputError(f"kernels={self.kernels}: bottlenecks have kernel 3 only")
        self._check_channels("stem", self.stem)
        if not self.widths:
            raise InputError("widths=(): expected one multiplier or more, such as (1.0,)")
        for index, stage in enumerate(self.stages):
            if stage.se:
                raise InputError(f"stages[{index}].se=True: bottlenecks have no SE")

    def scaled(self, width: int) -> tuple[int, ...]:
        """The channels of a layer of base `width` for each width choice."""
        return tuple(make_divisible(width * multiplier) for multiplier in self.widths)

    @functools.cached_property
    def stem_block(self) -> Stem:
        """The stem at every width choice."""
        widths = self.scaled(self.stem)
        return Stem(mids=tuple(make_divisible(w // 2) for w in widths), widths=widths)

    @functools.cached_property
    def blocks(self) -> tuple[Bottleneck, ...]:
        """Every block at full depth, in the order of `Arch.expand`."""
        blocks = []
        in_widths = self.stem_block.widths
        for stage_index, stage in enumerate(self.stages):
            widths = self.scaled(stage.width)
            mids = tuple(
                tuple(make_divisible(round(width * e)) for e in self.expands) for width in widths
            )
            for position in range(self.stage_depths[stage_index][-1]):
                block = Bottleneck(
                    name=f"stage{stage_index + 1}_block{position + 1}",
                    stage=stage_index,
                    position=position,
                    in_widths=in_widths,
                    widths=widths,
                    stride=stage.stride if position == 0 else 1,
                    act=stage.act,
                    mids=mids,
                )
                blocks.append(block)
                in_widths = widths
        return tuple(blocks)

    def in_gene(self, block: Bottleneck) -> int:
        """The gene of `Arch.width` that sets the block's input width; its output's is stage + 2."""
        return block.stage + (1 if block.position == 0 else 2)

    def keeps_stem(self, depth: Any) -> Any:
        """Whether an arch of such depth genes has the stem's residual."""
        return depth[0] == len(self.depths) - 1

    def active_stem(self, arch: Arch) -> Stem:
        """The stem of one concrete `arch`."""
        indices, full = self.indices(arch), self.stem_block
        mid, width, *_ = indices["width"]
        return Stem((full.mids[mid],), (full.widths[width],), self.keeps_stem(indices["depth"]))

    def active_blocks(self, arch: Arch) -> tuple[Bottleneck, ...]:
        """The blocks of one concrete `arch`, each narrowed to its choice; skipped ones left out."""
        indices = self.indices(arch)
        width = indices["width"]
        drawn = zip(self.blocks, indices["expand"], self.active(arch.depth), strict=True)
        return tuple(
            block.narrow(width[self.in_gene(block)], width[block.stage + 2], expand)
            for block, expand, keep in drawn
            if keep
        )

    @functools.cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """Kernel (one choice), expand, depth and width."""
        stem = (self.depths[0],) * (len(self.depths) - 1) + self.depths[-1:]
        width = tuple(range(len(self.widths)))
        return {
            "kernel": Dimension("", (self.kernels,) * len(self.blocks)),
            "expand": Dimension("e", (self.expands,) * len(self.blocks)),
            "depth": Dimension("d", (stem, *[self.depths] * len(self.stages)), also=self.depths),
            "width": Dimension("w", (width,) * (2 + len(self.stages))),
        }

    def open_genes(self, choices: Choices) -> Choices:
        """As in every space, but the stem's depth is the smallest or the largest open one."""
        opened = super().open_genes(choices)
        mask, index = choices.depth, jnp.arange(len(self.depths))
        smallest, largest = jnp.argmax(mask), len(mask) - 1 - jnp.argmax(mask[::-1])
        ends = (index == smallest) | (index == largest)
        return opened._replace(depth=opened.depth.at[0].set(ends))

    @functools.cached_property
    def size(self) -> int:
        """The number of distinct subnets at one resolution."""
        skippable = 2 if len(self.depths) > 1 else 1
        stem = skippable * len(set(self.stem_block.mids)) * len(set(self.stem_block.widths))
        stages = [
            len(set(self.scaled(stage.width))) * count_blocks(len(self.expands), depths)
            for stage, depths in zip(self.stages, self.stage_depths, strict=True)
        ]
        return stem * math.prod(stages)
