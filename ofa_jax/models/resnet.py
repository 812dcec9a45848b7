"""ResNet-D as supernet and as subnet, from one definition."""

import functools
from typing import Any

import jax
from flax import linen as nn

from ofa_jax import conv
from ofa_jax.models.branches import drawn_block
from ofa_jax.models.layers import BottleneckBlock, Classifier, DeepStem, Norm, check_call
from ofa_jax.space import Arch
from ofa_jax.spaces import Bottleneck, ResNetSpace, Stem


class ResNet(nn.Module):
    """The network of `space` over a stem and `blocks`.

    With the space's own `stem_block` and `blocks` it is the supernet and is called with an
    `Arch`; with narrowed ones it is a subnet and is called without. `train`, dropout, types,
    `norm_axis` and `compute` as in `MobileNetV3`; the stem is always masked.
    """

    space: ResNetSpace
    stem: Stem
    blocks: tuple[Bottleneck, ...]
    norm_axis: str | None = None
    compute: str = "masks"

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
        check_call(space, self.blocks, images, arch)
        stem = DeepStem(self.stem, norm, name="stem")
        if arch is None or arch.width is None:
            x = stem(images, None, None, None, train)
        else:
            x = stem(images, arch.width[0], arch.width[1], space.keeps_stem(arch.depth), train)
        x = conv.max_pool(x, size=3, stride=2)
        active: Any = None if arch is None else space.active(arch.depth)
        masks = self.compute == "masks" or self.is_initializing()
        for i, block in enumerate(self.blocks):
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
                x = drawn_block(self, variant, block, choice, keep, None, x, train)
        return Classifier(space.num_classes, space.dropout, name="classifier")(
            x.mean((1, 2)), train
        )
