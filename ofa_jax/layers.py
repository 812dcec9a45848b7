"""The layers of a once-for-all network; a `None` choice means the layer is not elastic.

Parameters are float32; a layer computes in the type of its input, statistics in float32.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ofa_jax import conv, elastic
from ofa_jax.branches import sampled_depthwise

ACTIVATIONS = {"relu": jax.nn.relu, "relu6": jax.nn.relu6, "h_swish": jax.nn.hard_swish}

# The reference's init: normal with variance 2 / (k * k * output channels), depthwise ones too.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal", dtype=jnp.float32)
# PyTorch's default for the layers it leaves alone: uniform within 1 / sqrt(inputs).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", dtype=jnp.float32)


def activate(act: str | None, x: jax.Array) -> jax.Array:
    """`x` through the activation of this name; None leaves it as it is."""
    return x if act is None else ACTIVATIONS[act](x)


@dataclasses.dataclass(frozen=True)
class Norm:
    """How all batch norms of a network normalise.

    Attributes:
      eps: added to variances.
      momentum: what running statistics keep at each step.
      axis: the mesh axis over whose devices batch statistics are taken, inside `jax.shard_map`;
        None takes those of the device's own images.
    """

    eps: float = 1e-5
    momentum: float = 0.9
    axis: str | None = None


class BatchNorm(nn.Module):
    """Batch norm over `[batch, height, width, channels]` whose inactive channels are zero.

    With `train`, batch statistics normalise, and the running ones of *active* channels move (by
    PyTorch's unbiased variance); those of inactive channels never do. Where the collection
    "moments" is mutable it receives the batch's mean, biased variance and the active channels:
    calibration reads it. Statistics are float32, whatever `x` is.
    """

    norm: Norm = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        channels = x.shape[-1]
        shape = ((channels,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, *shape)
        bias = self.param("bias", nn.initializers.zeros, *shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, *shape)
        var = self.variable("batch_stats", "var", jnp.ones, *shape)
        norm = self.norm
        if not train:
            return elastic.normalize(x, mean.value, var.value, scale, bias, norm.eps, mask)
        batch_mean, batch_var = elastic.batch_moments(x, norm.axis)
        active = jnp.ones((channels,), bool) if mask is None else mask
        if self.is_mutable_collection("moments") and not self.is_initializing():
            self.put_variable("moments", "mean", batch_mean)
            self.put_variable("moments", "var", batch_var)
            self.put_variable("moments", "active", active)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            count = x.size // channels * (jax.lax.axis_size(norm.axis) if norm.axis else 1)
            unbiased = batch_var * (count / max(count - 1, 1))
            for running, batch in ((mean, batch_mean), (var, unbiased)):
                moved = norm.momentum * running.value + (1 - norm.momentum) * batch
                running.value = jnp.where(active, moved, running.value)
        return elastic.normalize(x, batch_mean, batch_var, scale, bias, norm.eps, mask)


class ConvBN(nn.Module):
    """Convolution without bias, symmetric padding k // 2, then masked batch norm, then `act`."""

    features: int
    kernel: int = 1
    stride: int = 1
    act: str | None = None
    norm: Norm = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        if self.kernel == 1:
            x = Pointwise(self.features, name="conv")(x)
        else:
            x = Conv(self.features, self.kernel, self.stride, name="conv")(x)
        x = BatchNorm(self.norm, name="bn")(x, mask, train)
        return activate(self.act, x)


class Conv(nn.Module):
    """k x k convolution without bias."""

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        weight = self.param("kernel", he_fan_out, shape)
        return conv.dense_conv(x, weight.astype(x.dtype), self.stride)


class Pointwise(nn.Module):
    """1x1 convolution without bias."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.param("kernel", he_fan_out, (x.shape[-1], self.features))
        return conv.pointwise_conv(x, weight.astype(x.dtype))


class DepthwiseBN(nn.Module):
    """Depthwise convolution with an elastic kernel size, then masked batch norm and `act`.

    With `compute="branches"` a small filter runs at its own size, else as a large one with zeros
    around it.
    """

    kernels: tuple[int, ...]
    stride: int
    act: str | None
    norm: Norm
    compute: str = "masks"

    @nn.compact
    def __call__(
        self, x: jax.Array, kernel: jax.Array | None, mask: jax.Array | None, train: bool
    ) -> jax.Array:
        kernels, stride = self.kernels, self.stride
        shape = (kernels[-1], kernels[-1], 1, x.shape[-1])
        weight, matrices = DepthwiseWeight(kernels, shape, name="conv")()
        if kernel is not None and len(kernels) > 1 and self.compute == "branches":
            x = sampled_depthwise(x, weight, matrices, kernels, kernel, stride)
        else:
            if kernel is not None:
                weight = elastic.elastic_kernel(weight, matrices, kernels, kernel)
            x = conv.depthwise_conv(x, weight.astype(x.dtype), stride)
        x = BatchNorm(self.norm, name="bn")(x, mask, train)
        return activate(self.act, x)


class DepthwiseWeight(nn.Module):
    """The largest depthwise filter, and the chain of transforms to the smaller ones."""

    kernels: tuple[int, ...]
    shape: tuple[int, int, int, int]

    @nn.compact
    def __call__(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        weight = self.param("kernel", he_fan_out, self.shape)
        matrices = {}
        for smaller, larger in itertools.pairwise(self.kernels):
            name = elastic.matrix_name(larger, smaller)
            matrices[name] = self.param(name, _identity, smaller * smaller)
        return weight, matrices


def _identity(_: Any, size: int) -> jax.Array:
    return jnp.eye(size, dtype=jnp.float32)


class SqueezeExcite(nn.Module):
    """Channel attention: pool, reduce to `squeeze`, ReLU, expand, hard sigmoid.

    The squeeze units have biases, so inactive ones need a mask of their own. Inactive channels
    of `x` are zero and stay so.
    """

    squeeze: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        pooled = x.mean((1, 2))
        y = nn.Dense(self.squeeze, dtype=x.dtype, kernel_init=he_fan_out, name="reduce")(pooled)
        y = jax.nn.relu(y)
        if mask is not None:
            y = jnp.where(mask[None, :], y, 0.0)
        y = nn.Dense(x.shape[-1], dtype=x.dtype, kernel_init=he_fan_out, name="expand")(y)
        return x * jax.nn.hard_sigmoid(y)[:, None, None, :]


def halve(x: jax.Array) -> jax.Array:
    """2x2 average pooling; an odd last row or column is averaged over what there is of it."""
    margins = tuple((0, n % 2) for n in x.shape[1:3])
    return nn.avg_pool(x, (2, 2), strides=(2, 2), padding=margins, count_include_pad=False)


class Dropout(nn.Module):
    """Zeroes a share `rate` of `[batch, features]` by the "dropout" key, and scales up the rest.

    Flax's draws in JAX's default precision, so that other images drop out with 64 bits.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kept = 1 - self.rate
        keep = jax.random.bernoulli(self.make_rng("dropout"), jnp.float32(kept), x.shape)
        return jnp.where(keep, x / kept, 0)


class Classifier(nn.Module):
    """Dropout, then a linear layer: `[batch, features]` to float32 logits `[batch, classes]`.

    Dropout acts in train mode, and only with a "dropout" key.
    """

    classes: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if train and self.dropout and self.has_rng("dropout"):
            x = Dropout(self.dropout)(x)
        kernel = self.param("kernel", torch_uniform, (x.shape[-1], self.classes))
        bias = self.param("bias", nn.initializers.zeros, (self.classes,), jnp.float32)
        return x.astype(jnp.float32) @ kernel + bias[None, :]
