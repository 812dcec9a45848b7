"""Inverted residuals, MobileNetV3 and ProxylessNAS: elastic kernel, expand ratio and depth."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ofa_jax import elastic
from ofa_jax.branches import sampled_block
from ofa_jax.errors import InputError
from ofa_jax.families.base import Network, register
from ofa_jax.layers import (
    ACTIVATIONS,
    Classifier,
    ConvBN,
    DepthwiseBN,
    Norm,
    SqueezeExcite,
    he_fan_out,
)
from ofa_jax.space import Arch, SearchSpace, make_divisible
from ofa_jax.topology import Add, Builder, Layers, Mean, Size
from ofa_jax.topology import SqueezeExcite as Attention


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

    @property
    def reference(self) -> str:
        """What once-for-all calls the family in its files."""
        return "MobileNetV3" if self.features else "ProxylessNASNets"

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
        for name, stage_index, position, stride in self.places:
            stage = self.stages[stage_index]
            mids = tuple(make_divisible(round(in_width * e)) for e in self.expands)
            block = InvertedResidual(
                name=name,
                stage=stage_index,
                position=position,
                in_width=in_width,
                width=stage.width,
                stride=stride,
                act=stage.act,
                kernels=self.kernels,
                mids=mids,
                squeezes=tuple(make_divisible(m // 4) for m in mids) if stage.se else (),
            )
            blocks.append(block)
            in_width = stage.width
        return tuple(blocks)

    @functools.cached_property
    def layers(self) -> Layers:
        """Stem, fixed block, elastic blocks, head; with the names of once-for-all."""
        net, act = Builder(), self.outer_act
        net.begin("stem", "Conv-input:{input}-output:{output}")
        x = net.conv(0, "first_conv", self.stem, 3, self.stem_stride, act, reference="first_conv")
        net.begin("first block", _key(self.first_block))
        x = _describe(net, x, self.first_block, None)
        for i, block in enumerate(self.blocks):
            net.begin(block.name, _key(block), i, block.stage, self.kept(block))
            x = _describe(net, x, block, i)
        # ProxylessNAS has no layer after the pooling, and calls the one before it by that name.
        name = "final_expand_layer" if self.features else "feature_mix_layer"
        net.begin("head", "Conv_1-input:{input}-output:{output}")
        x = net.conv(x, "final_expand_layer", self.head, act=act, reference=name)
        net.begin("pooling", "AvgPool2D-input:{input}-output:{output}")
        x = net.add(Mean(), x, stride=0)
        if self.features:
            net.begin("features", "Conv_2-input:{input}-output:{output}")
            x = net.dense(x, "feature_mix_layer", self.features, act, bias=False,
                          reference="feature_mix_layer.conv")  # fmt: skip
        net.begin("classifier", f"Logits-input:{{input}}-output:{self.num_classes}")
        net.dense(x, "classifier", self.num_classes, reference="classifier.linear")
        return tuple(net.layers)

    def active_blocks(self, arch: Arch) -> tuple[InvertedResidual, ...]:
        """The blocks of one concrete `arch`, each narrowed to its choice; skipped ones left out."""
        indices = self.indices(arch)
        chosen = zip(self.blocks, indices["kernel"], indices["expand"], strict=True)
        kept = zip(chosen, self.active(arch.depth), strict=True)
        return tuple(block.narrow(kernel, expand) for (block, kernel, expand), keep in kept if keep)


def _key(block: InvertedResidual) -> str:
    """The reference's (`latency_table.py`)."""
    return (
        "expanded_conv-input:{input}-output:{output}-expand:{mid}-kernel:{kernel}"
        f"-stride:{block.stride}-idskip:{int(block.residual)}"
        f"-se:{int(bool(block.squeezes))}-hs:{int(block.act == 'h_swish')}"
    )


def _describe(net: Builder, x: int, block: InvertedResidual, index: int | None) -> int:
    """Adds the layers of a block, the fixed one if it has no index in `Arch.kernel`."""

    def size(values: tuple[int, ...], field: str) -> Size:
        return Size(values[0]) if index is None else Size(values, ((field, index),))

    reference = f"blocks.{0 if index is None else index + 1}.conv"
    y = x
    if block.inverted:
        y = net.conv(y, f"{block.name}/inverted_bottleneck", size(block.mids, "expand"),
                     act=block.act, reference=f"{reference}.inverted_bottleneck")  # fmt: skip
    y = net.depthwise(y, f"{block.name}/depth_conv", size(block.kernels, "kernel"), block.stride,
                      block.act, reference=f"{reference}.depth_conv")  # fmt: skip
    if block.squeezes:
        attention = Attention(f"{block.name}/se", size(block.squeezes, "expand"))
        y = net.add(attention, y, reference=f"{reference}.depth_conv.se.fc")
    y = net.conv(y, f"{block.name}/point_linear", block.width,
                 reference=f"{reference}.point_linear")  # fmt: skip
    return net.add(Add(), x, y) if block.residual else y


class MBConv(nn.Module):
    """Inverted residual block: expand 1x1, depthwise k x k (+ SE), project 1x1, add.

    `kernel` (index) and `expand` (index) are int32 scalars, `active` a boolean scalar; all `None`
    in a subnet. An inactive block has no active channel at all, hence adds zero: the input passes
    unchanged, every gradient of the block is exactly zero and no running statistic moves.
    """

    block: InvertedResidual
    norm: Norm
    compute: str = "masks"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        kernel: jax.Array | None,
        expand: jax.Array | None,
        active: jax.Array | None,
        train: bool,
    ) -> jax.Array:
        block = self.block
        mid, squeeze = block.mids[-1], max(block.squeezes, default=0)
        mid_mask = squeeze_mask = out_mask = None
        if expand is not None and active is not None:
            mid_mask = active & elastic.prefix_mask(jnp.asarray(block.mids, jnp.int32)[expand], mid)
            out_mask = active & jnp.ones((block.width,), bool)
            if squeeze:
                widths = jnp.asarray(block.squeezes, jnp.int32)
                squeeze_mask = active & elastic.prefix_mask(widths[expand], squeeze)
        y = x
        if block.inverted:
            y = ConvBN(mid, act=block.act, norm=self.norm, name="inverted_bottleneck")(
                y, mid_mask, train=train
            )
        depthwise = DepthwiseBN(
            block.kernels, block.stride, block.act, self.norm, self.compute, name="depth_conv"
        )
        y = depthwise(y, kernel, mid_mask, train)
        if squeeze:
            y = SqueezeExcite(squeeze, name="se")(y, squeeze_mask)
        y = ConvBN(block.width, norm=self.norm, name="point_linear")(y, out_mask, train=train)
        return x + y if block.residual else y


class MobileNetV3(Network):
    """A network of inverted residuals."""

    space: MobileNetSpace

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
        active: Any = None if arch is None else space.active(arch.depth)
        masks = self.compute == "masks" or self.is_initializing()
        x = ConvBN(space.stem, 3, space.stem_stride, space.outer_act, norm, name="first_conv")(
            images, train=train
        )
        x = MBConv(space.first_block, norm, name="first_block")(x, None, None, None, train)
        own = self.arch
        blocks = space.blocks if own is None else space.active_blocks(own)
        for i, block in enumerate(blocks):
            if arch is None:
                x = MBConv(block, norm, name=block.name)(x, None, None, None, train)
                continue
            kernel, expand = arch.kernel[i], arch.expand[i]
            if masks:
                x = MBConv(block, norm, name=block.name)(x, kernel, expand, active[i], train)
            else:
                variant = functools.partial(MBConv, norm=norm, compute=self.compute, parent=None)
                keep = None if space.always(block) else active[i]
                x = sampled_block(self, variant, block, expand, keep, kernel, x, train)
        x = ConvBN(space.head, act=space.outer_act, norm=norm, name="final_expand_layer")(
            x, train=train
        )
        x = x.mean((1, 2))
        if space.features:
            x = nn.Dense(
                space.features,
                use_bias=False,
                dtype=x.dtype,
                kernel_init=he_fan_out,
                name="feature_mix_layer",
            )(x)
            x = ACTIVATIONS[space.outer_act](x)
        return Classifier(space.num_classes, space.dropout, name="classifier")(x, train)


register("mobilenet", MobileNetSpace, MobileNetV3)
