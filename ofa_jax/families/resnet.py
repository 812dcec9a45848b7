"""Bottleneck residuals, ResNet-D: elastic depth, expand ratio, width and stem."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ofa_jax import conv, elastic
from ofa_jax.branches import sampled_block
from ofa_jax.errors import InputError
from ofa_jax.families.base import Network, register
from ofa_jax.layers import ACTIVATIONS, Classifier, ConvBN, Norm, halve
from ofa_jax.space import Arch, Choices, Dimension, SearchSpace, count_blocks, make_divisible
from ofa_jax.topology import Add, Builder, Halve, Layers, MaxPool, Mean, Size


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
    `Arch.depth` the stem, which has a residual only at the largest choice, then the stages.
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

    @property
    def reference(self) -> str:
        """What once-for-all calls the family in its files."""
        return "ResNets"

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
        for name, stage_index, position, stride in self.places:
            stage = self.stages[stage_index]
            widths = self.scaled(stage.width)
            block = Bottleneck(
                name=name,
                stage=stage_index,
                position=position,
                in_widths=in_widths,
                widths=widths,
                stride=stride,
                act=stage.act,
                mids=tuple(
                    tuple(make_divisible(round(width * e)) for e in self.expands)
                    for width in widths
                ),
            )
            blocks.append(block)
            in_widths = widths
        return tuple(blocks)

    @functools.cached_property
    def layers(self) -> Layers:
        """Deep stem, bottlenecks, classifier; with the names of once-for-all."""
        net = Builder()
        x = self._describe_stem(net)
        for i, block in enumerate(self.blocks):
            key = (
                "bottleneck-input:{input}-output:{output}-mid:{mid}"
                f"-stride:{block.stride}-projected:{int(block.projected)}"
            )
            net.begin(block.name, key, i, block.stage, self.kept(block))
            x = self._describe_block(net, x, i)
        net.begin("classifier", f"Logits-input:{{input}}-output:{self.num_classes}")
        x = net.add(Mean(), x, stride=0)
        net.dense(x, "classifier", self.num_classes, reference="classifier.linear")
        return tuple(net.layers)

    def _describe_stem(self, net: Builder) -> int:
        stem = self.stem_block
        mid, width = Size(stem.mids, (("width", 0),)), Size(stem.widths, (("width", 1),))
        kept = Size((0,) * (len(self.depths) - 1) + (1,), (("depth", 0),))
        net.begin("stem", "stem-input:{input}-output:{output}-mid:{mid}-residual:{residual}")
        x = net.conv(0, "stem/conv1", mid, 3, 2, "relu", reference="input_stem.0")
        y = net.conv(x, "stem/conv2", mid, 3, 1, "relu", kept, reference="input_stem.1.conv")
        x = net.add(Add(), x, y, kept=kept)
        x = net.conv(x, "stem/conv3", width, 3, 1, "relu", reference="input_stem.2")
        return net.add(MaxPool(), x, stride=2)

    def _describe_block(self, net: Builder, x: int, index: int) -> int:
        block, reference = self.blocks[index], f"blocks.{index}"
        own = ("width", block.stage + 2)
        mid, out = Size(block.mids, (own, ("expand", index))), Size(block.widths, (own,))
        y = net.conv(x, f"{block.name}/conv1", mid, act=block.act, reference=f"{reference}.conv1")
        y = net.conv(y, f"{block.name}/conv2", mid, 3, block.stride, block.act,
                     reference=f"{reference}.conv2")  # fmt: skip
        y = net.conv(y, f"{block.name}/conv3", out, reference=f"{reference}.conv3")
        if block.projected:
            x = net.add(Halve(), x, stride=2) if block.stride == 2 else x
            x = net.conv(x, f"{block.name}/downsample", out, reference=f"{reference}.downsample")
        return net.add(Add(block.act), x, y)

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
        chosen = zip(self.blocks, indices["expand"], self.active(arch.depth), strict=True)
        return tuple(
            block.narrow(width[self.in_gene(block)], width[block.stage + 2], expand)
            for block, expand, keep in chosen
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


class DeepStem(nn.Module):
    """Three 3x3 convolutions, the first of stride 2; the second is a residual, if it is kept.

    `mid` and `width` are int32 scalar indices, `keep` a boolean scalar; all `None` in a subnet.
    """

    stem: Stem
    norm: Norm

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        mid: jax.Array | None,
        width: jax.Array | None,
        keep: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        mids, widths, norm = self.stem.mids, self.stem.widths, self.norm
        mid_mask = residual_mask = out_mask = None
        if mid is not None and width is not None and keep is not None:
            mid_mask = elastic.prefix_mask(jnp.asarray(mids, jnp.int32)[mid], mids[-1])
            residual_mask = mid_mask & keep
            out_mask = elastic.prefix_mask(jnp.asarray(widths, jnp.int32)[width], widths[-1])
        x = ConvBN(mids[-1], 3, 2, "relu", norm, name="conv1")(images, mid_mask, train=train)
        if self.stem.residual:
            residual = ConvBN(mids[-1], 3, 1, "relu", norm, name="conv2")
            x = x + residual(x, residual_mask, train=train)
        return ConvBN(widths[-1], 3, 1, "relu", norm, name="conv3")(x, out_mask, train=train)


class BottleneckBlock(nn.Module):
    """Bottleneck residual: 1x1, 3x3, 1x1, added to the shortcut, then the activation.

    `width` and `expand` are int32 scalar indices, `active` a boolean scalar; all `None` in a
    subnet. An inactive block adds zero to its input, which the activation leaves as it is: the
    block before ended with the same one.
    """

    block: Bottleneck
    norm: Norm

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        width: jax.Array | None,
        expand: jax.Array | None,
        active: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        block, norm = self.block, self.norm
        mid, out = block.mids[-1][-1], block.widths[-1]
        mid_mask = out_mask = None
        if width is not None and expand is not None and active is not None:
            mids, widths = (jnp.asarray(w, jnp.int32) for w in (block.mids, block.widths))
            mid_mask = active & elastic.prefix_mask(mids[width, expand], mid)
            out_mask = active & elastic.prefix_mask(widths[width], out)
        y = ConvBN(mid, act=block.act, norm=norm, name="conv1")(x, mid_mask, train=train)
        y = ConvBN(mid, 3, block.stride, block.act, norm, name="conv2")(y, mid_mask, train=train)
        y = ConvBN(out, norm=norm, name="conv3")(y, out_mask, train=train)
        if block.projected:
            x = ConvBN(out, norm=norm, name="downsample")(
                halve(x) if block.stride == 2 else x, out_mask, train=train
            )
        return ACTIVATIONS[block.act](x + y)


class ResNet(Network):
    """A network of bottlenecks; its stem is always masked."""

    space: ResNetSpace

    @nn.compact
    def __call__(
        self, images: jax.Array, arch: Arch | None = None, train: bool = False
    ) -> jax.Array:
        """Logits `[batch, classes]` float32 of `images` `[batch, height, width, 3]`.

        Raises:
          ValueError: images of another rank, channel count or dtype; a missing or needless arch.
        """
        space = self.space
        norm = Norm(space.bn_eps, axis=self.norm_axis)
        self.check_call(images, arch)
        own = self.arch
        stem_block = space.stem_block if own is None else space.active_stem(own)
        blocks = space.blocks if own is None else space.active_blocks(own)
        stem = DeepStem(stem_block, norm, name="stem")
        if arch is None or arch.width is None:
            x = stem(images, None, None, None, train)
        else:
            x = stem(images, arch.width[0], arch.width[1], space.keeps_stem(arch.depth), train)
        x = conv.max_pool(x, size=3, stride=2)
        active: Any = None if arch is None else space.active(arch.depth)
        masks = self.compute == "masks" or self.is_initializing()
        for i, block in enumerate(blocks):
            if arch is None or arch.width is None:
                x = BottleneckBlock(block, norm, name=block.name)(x, None, None, None, train)
                continue
            width, expand = arch.width[block.stage + 2], arch.expand[i]
            if masks:
                layer = BottleneckBlock(block, norm, name=block.name)
                x = layer(x, width, expand, active[i], train)
            else:
                variant = functools.partial(BottleneckBlock, norm=norm, parent=None)
                choice = width * len(block.mids[0]) + expand
                keep = None if space.always(block) else active[i]
                x = sampled_block(self, variant, block, choice, keep, None, x, train)
        return Classifier(space.num_classes, space.dropout, name="classifier")(
            x.mean((1, 2)), train
        )


register("resnet", ResNetSpace, ResNet)
