"""Some layers of a network by themselves, to be timed."""

import jax
from flax import linen as nn

from ofa_jax import conv, topology
from ofa_jax.layers import (
    Classifier,
    ConvBN,
    DepthwiseBN,
    Norm,
    SqueezeExcite,
    activate,
    halve,
    he_fan_out,
)
from ofa_jax.space import SearchSpace
from ofa_jax.topology import Layers


class Alone(nn.Module):
    """The `layers` of a subnet of `space`, in evaluation: `[batch, size, size, channels]` in.

    Each size of them has one value left, as `topology.narrow` leaves them.
    """

    space: SearchSpace
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """What the last layer gives."""
        values = [x]
        for layer in self.layers:
            values.append(self._apply(layer, *(values[i] for i in layer.inputs)))
        return values[-1]

    def _apply(self, layer: topology.Layer, x: jax.Array, *others: jax.Array) -> jax.Array:
        space, norm = self.space, Norm(self.space.bn_eps)
        channels = layer.output.channels.most
        match layer.operation:
            case topology.Conv(_, kernel, stride, act, depthwise=True):
                return DepthwiseBN((kernel.most,), stride, act, norm)(x, None, None, False)
            case topology.Conv(_, kernel, stride, act):
                return ConvBN(channels, kernel.most, stride, act, norm)(x, train=False)
            case topology.SqueezeExcite(_, squeeze):
                return SqueezeExcite(squeeze.most)(x, None)
            case topology.Add(act):
                return activate(act, x + others[0])
            case topology.MaxPool():
                return conv.max_pool(x, size=3, stride=2)
            case topology.Halve():
                return halve(x)
            case topology.Mean():
                return x.mean((1, 2))
            case topology.Dense(bias=True, act=None):
                return Classifier(channels, space.dropout)(x.reshape(x.shape[0], -1), False)
            case topology.Dense(act=act, bias=bias):
                x = x.reshape(x.shape[0], -1)
                dense = nn.Dense(channels, bias, dtype=x.dtype, kernel_init=he_fan_out)
                return activate(act, dense(x))
