"""The space of inverted residuals, MobileNetV3 and ProxylessNAS: elastic kernel, expand, depth."""

import dataclasses
import functools
import math

from ofa_jax.errors import InputError
from ofa_jax.space import (
    ACTIVATIONS,
    Arch,
    Dimension,
    SearchSpace,
    count_blocks,
    make_divisible,
)


@dataclasses.dataclass(frozen=True)
class InvertedResidual:
    """The static dimensions of one block; in a subnet every tuple has one entry.

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

    @property
    def variants(self) -> tuple["InvertedResidual", ...]:
        """The block with one middle width left, each in turn; equal blocks have equal ones."""
        return tuple(
            dataclasses.replace(
                self, name="", stage=0, position=0, mids=(mid,), squeezes=self.squeezes[i : i + 1]
            )
            for i, mid in enumerate(self.mids)
        )

    def narrow(self, kernel: int, expand: int) -> "InvertedResidual":
        """The block with one kernel and one expand choice (indices) left."""
        return dataclasses.replace(
            self,
            kernels=(self.kernels[kernel],),
            mids=(self.mids[expand],),
            squeezes=self.squeezes and (self.squeezes[expand],),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetSpace(SearchSpace):
    """Inverted residuals after a stem and one fixed block, with a 1x1 head.

    Attributes:
      stem: output channels of the first 3x3 convolution; `stem_stride` its stride.
      first: output channels of the one fixed block after it, `first_act` its activation.
      head: channels of the last convolution; `features` those of the layer before the classifier,
        0 for none. `outer_act` is the activation of the stem and of both.
    """

    stem: int
    first: int
    head: int
    features: int
    stem_stride: int = 2
    outer_act: str = "h_swish"
    first_act: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("outer_act", "first_act"):
            if getattr(self, field) not in ACTIVATIONS:
                allowed = ", ".join(ACTIVATIONS)
                raise InputError(f"{field}={getattr(self, field)!r}: expected one of {allowed}")
        for field, least in (("stem", 1), ("first", 1), ("head", 1), ("features", 0)):
            self._check_channels(field, getattr(self, field), least)
        if self.stem_stride not in (1, 2):
            raise InputError(f"stem_stride={self.stem_stride}: expected 1 or 2")
        if self.widths:
            raise InputError(f"widths={self.widths}: inverted residuals have no elastic width")

    @functools.cached_property
    def first_block(self) -> InvertedResidual:
        """The fixed block after the stem: kernel 3, no expansion, no SE."""
        return InvertedResidual(
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
    def blocks(self) -> tuple[InvertedResidual, ...]:
        """Every elastic block at full depth, in the order of `Arch.kernel` and `Arch.expand`."""
        blocks = []
        in_width = self.first
        for stage_index, stage in enumerate(self.stages):
            for position in range(self.stage_depths[stage_index][-1]):
                mids = tuple(make_divisible(round(in_width * e)) for e in self.expands)
                block = InvertedResidual(
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

    def active_blocks(self, arch: Arch) -> tuple[InvertedResidual, ...]:
        """The blocks of one concrete `arch`, each narrowed to its choice; skipped ones left out."""
        indices = self.indices(arch)
        drawn = zip(self.blocks, indices["kernel"], indices["expand"], strict=True)
        kept = zip(drawn, self.active(arch.depth), strict=True)
        return tuple(block.narrow(kernel, expand) for (block, kernel, expand), keep in kept if keep)

    @functools.cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """Kernel, expand and depth. A stage of fixed depth may be given any, as the reference."""
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
