"""MobileNetV3 and ProxylessNAS as supernet and as subnet, from one definition."""

import functools
from typing import Any

import jax
from flax import linen as nn

from ofa_jax.models.branches import drawn_block
from ofa_jax.models.layers import (
    ACTIVATIONS,
    Classifier,
    ConvBN,
    MBConv,
    Norm,
    check_call,
    he_fan_out,
)
from ofa_jax.space import Arch
from ofa_jax.spaces import InvertedResidual, MobileNetSpace


class MobileNetV3(nn.Module):
    """The network of `space` over `blocks`.

    With the space's own elastic `blocks` it is the supernet and is called with an `Arch`; with
    narrowed blocks it is a subnet and is called without. `train` normalises by batch statistics;
    dropout acts only where a "dropout" key is given too, so a teacher in train mode has none.
    It computes in the images' own type, float32 or bfloat16. `norm_axis` is the mesh axis over
    which batch statistics are taken (`Norm.axis`). A supernet computes its elastic blocks as
    "masks", all at their largest, or as "branches", each as the arch draws it; both are equal.
    """

    space: MobileNetSpace
    blocks: tuple[InvertedResidual, ...]
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
        active: Any = None if arch is None else space.active(arch.depth)
        masks = self.compute == "masks" or self.is_initializing()
        x = ConvBN(space.stem, 3, space.stem_stride, space.outer_act, norm, name="first_conv")(
            images, train=train
        )
        x = MBConv(space.first_block, norm, name="first_block")(x, None, None, None, train)
        for i, block in enumerate(self.blocks):
            if arch is None:
                x = MBConv(block, norm, name=block.name)(x, None, None, None, train)
                continue
            kernel, expand = arch.kernel[i], arch.expand[i]
            if masks:
                x = MBConv(block, norm, name=block.name)(x, kernel, expand, active[i], train)
            else:
                variant = functools.partial(MBConv, norm=norm, compute=self.compute, parent=None)
                keep = None if space.always(block) else active[i]
                x = drawn_block(self, variant, block, expand, keep, kernel, x, train)
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
