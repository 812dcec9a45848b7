"""One layer of a network by itself, to be timed."""

from typing import Any

import jax
from flax import linen as nn

from ofa_jax import conv
from ofa_jax.models.layers import (
    ACTIVATIONS,
    BottleneckBlock,
    Classifier,
    ConvBN,
    DeepStem,
    MBConv,
    Norm,
    he_fan_out,
)
from ofa_jax.spaces import Bottleneck, InvertedResidual, MobileNetSpace, ResNetSpace, Stem


class Alone(nn.Module):
    """What `layer` names in a subnet of `space`, in evaluation: `[batch, size, size, channels]` in.

    `layer` is a block or stem with one choice left, or "stem", "head", "pool", "features",
    "classifier", "pooled classifier".
    """

    space: MobileNetSpace | ResNetSpace
    layer: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The layer's output."""
        space, layer, norm = self.space, self.layer, Norm(self.space.bn_eps)
        if isinstance(layer, InvertedResidual):
            return MBConv(layer, norm)(x, None, None, None, False)
        if isinstance(layer, Bottleneck):
            return BottleneckBlock(layer, norm)(x, None, None, None, False)
        if isinstance(layer, Stem):
            x = DeepStem(layer, norm)(x, None, None, None, False)
            return conv.max_pool(x, size=3, stride=2)
        if layer in ("pool", "pooled classifier"):
            x = x.mean((1, 2))
        if layer in ("classifier", "pooled classifier"):
            x = x.reshape(x.shape[0], -1)
            return Classifier(space.num_classes, space.dropout)(x, False)
        if layer == "pool":
            return x
        assert isinstance(space, MobileNetSpace)
        act = space.outer_act
        if layer == "features":
            x = nn.Dense(space.features, use_bias=False, dtype=x.dtype, kernel_init=he_fan_out)(x)
            return ACTIVATIONS[act](x)
        if layer == "stem":
            return ConvBN(space.stem, 3, space.stem_stride, act, norm)(x, train=False)
        assert layer == "head", layer
        return ConvBN(space.head, act=act, norm=norm)(x, train=False)
