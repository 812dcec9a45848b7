"""A subnet as what every exported file holds: a short list of layers, batch norms folded away.

Nothing is elastic any more, so a network is a handful of operations in a row. The JAX subnet says
what is right; `run` and every exported file are compared with it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import conv
from ofa_jax.models import MobileNetV3, Network
from ofa_jax.models.layers import ACTIVATIONS, halve
from ofa_jax.normalization import normalize_images

Tree = Any


@dataclasses.dataclass(frozen=True)
class Normalize:
    """uint8 pixels to normalised float32: what `card.json` calls scale, mean and std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Conv:
    """Convolution with bias, padding k // 2; depthwise where `weight` is `[k, k, 1, channels]`."""

    weight: np.ndarray  # [k, k, in, out]
    bias: np.ndarray  # [out]
    stride: int
    act: str | None
    depthwise: bool = False


@dataclasses.dataclass(frozen=True)
class SqueezeExcite:
    """Channel attention: mean, linear, ReLU, linear, hard sigmoid, times the input."""

    reduce: np.ndarray  # [channels, squeeze]
    reduce_bias: np.ndarray
    expand: np.ndarray  # [squeeze, channels]
    expand_bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class Add:
    """The sum of two values."""

    act: str | None = None


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """3x3 maximum, stride 2, padding 1."""


@dataclasses.dataclass(frozen=True)
class Halve:
    """2x2 mean, stride 2; an odd last row or column is the mean of what there is of it."""


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over all pixels: `[batch, channels]`."""


@dataclasses.dataclass(frozen=True)
class Dense:
    """A linear layer."""

    weight: np.ndarray  # [in, out]
    bias: np.ndarray  # [out]
    act: str | None = None


Operation = Normalize | Conv | SqueezeExcite | Add | MaxPool | Halve | Mean | Dense


class Layer(NamedTuple):
    """An operation on earlier values: 0 is the images, n what the n-th layer gives."""

    operation: Operation
    inputs: tuple[int, ...]


Graph = tuple[Layer, ...]


def fold(subnet: Network, variables: Tree) -> Graph:
    """The layers of a subnet, its batch norms folded into the convolutions before them.

    Args:
      subnet: from `extract` or `load_subnet`.
      variables: its own, calibrated.

    Returns:
      Layers from normalised images `[batch, height, width, 3]` to logits `[batch, classes]`.
    """
    variables = jax.tree.map(lambda a: np.asarray(a, np.float64), jax.device_get(variables))
    folding = Folding(subnet.space.bn_eps, variables["params"], variables["batch_stats"])
    if isinstance(subnet, MobileNetV3):
        return _fold_mobilenet(subnet, folding)
    return _fold_resnet(subnet, folding)


def with_normalization(graph: Graph, mean: tuple[float, ...], std: tuple[float, ...]) -> Graph:
    """The same network of uint8 pixels `[batch, height, width, 3]`."""
    moved = (Layer(op, tuple(i + 1 for i in inputs)) for op, inputs in graph)
    return (Layer(Normalize(tuple(mean), tuple(std)), (0,)), *moved)


def normalizes(graph: Graph) -> bool:
    """Whether the graph takes uint8 pixels."""
    return isinstance(graph[0].operation, Normalize)


def affine(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset `[3]` that take pixels 0 to 255 to normalised ones."""
    means, stds = np.asarray(mean), np.asarray(std)
    return _float32(1 / (255 * stds)), _float32(-means / stds)


@dataclasses.dataclass
class Folding:
    """A graph that grows: `add` gives the number of the new value."""

    eps: float
    params: Tree
    stats: Tree
    layers: list[Layer] = dataclasses.field(default_factory=list)

    def add(self, operation: Operation, *inputs: int) -> int:
        """A new layer."""
        self.layers.append(Layer(operation, inputs))
        return len(self.layers)

    def conv(self, x: int, path: str, stride: int = 1, act: str | None = None) -> int:
        """A convolution and the batch norm after it, by their path in the variables."""
        params, stats = _at(self.params, path), _at(self.stats, path)
        factor = params["bn"]["scale"] / np.sqrt(stats["bn"]["var"] + self.eps)
        bias = params["bn"]["bias"] - stats["bn"]["mean"] * factor
        weight = params["conv"]["kernel"]
        if weight.ndim == 2:
            weight = weight[None, None]
        depthwise = path.endswith("depth_conv")
        return self.add(Conv(_float32(weight * factor), _float32(bias), stride, act, depthwise), x)

    def dense(self, x: int, name: str, act: str | None = None) -> int:
        """A linear layer, by its name."""
        weight = self.params[name]["kernel"]
        bias = self.params[name].get("bias", np.zeros(weight.shape[-1]))
        return self.add(Dense(_float32(weight), _float32(bias), act), x)

    def squeeze_excite(self, x: int, path: str) -> int:
        """Channel attention, by its path."""
        tree = _at(self.params, path)
        ends = (tree[end][key] for end in ("reduce", "expand") for key in ("kernel", "bias"))
        return self.add(SqueezeExcite(*map(_float32, ends)), x)


def _at(tree: Tree, path: str) -> Tree:
    for name in path.split("/"):
        tree = tree[name]
    return tree


def _float32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


def _fold_mobilenet(subnet: MobileNetV3, net: Folding) -> Graph:
    space = subnet.space
    x = net.conv(0, "first_conv", space.stem_stride, space.outer_act)
    for name, block in (("first_block", space.first_block), *((b.name, b) for b in subnet.blocks)):
        y = x
        if block.inverted:
            y = net.conv(y, f"{name}/inverted_bottleneck", act=block.act)
        y = net.conv(y, f"{name}/depth_conv", block.stride, block.act)
        if max(block.squeezes, default=0):
            y = net.squeeze_excite(y, f"{name}/se")
        y = net.conv(y, f"{name}/point_linear")
        x = net.add(Add(), x, y) if block.residual else y
    x = net.add(Mean(), net.conv(x, "final_expand_layer", act=space.outer_act))
    if space.features:
        x = net.dense(x, "feature_mix_layer", space.outer_act)
    net.dense(x, "classifier")
    return tuple(net.layers)


def _fold_resnet(subnet: Any, net: Folding) -> Graph:
    x = net.conv(0, "stem/conv1", 2, "relu")
    if subnet.stem.residual:
        x = net.add(Add(), x, net.conv(x, "stem/conv2", act="relu"))
    x = net.add(MaxPool(), net.conv(x, "stem/conv3", act="relu"))
    for block in subnet.blocks:
        y = net.conv(x, f"{block.name}/conv1", act=block.act)
        y = net.conv(y, f"{block.name}/conv2", block.stride, block.act)
        y = net.conv(y, f"{block.name}/conv3")
        if block.projected:
            x = net.add(Halve(), x) if block.stride == 2 else x
            x = net.conv(x, f"{block.name}/downsample")
        x = net.add(Add(block.act), x, y)
    net.dense(net.add(Mean(), x), "classifier")
    return tuple(net.layers)


# -- running --------------------------------------------------------------------------------------


def run(graph: Graph, images: jax.Array) -> jax.Array:
    """Logits `[batch, classes]` of `images`, in JAX."""
    return values(graph, images)[-1]


def values(graph: Graph, images: jax.Array) -> list[jax.Array]:
    """The images and what each layer gives, `[batch, height, width, channels]`."""
    known = [images]
    for operation, inputs in graph:
        known.append(_apply(operation, *(known[i] for i in inputs)))
    return known


def shapes(graph: Graph, resolution: int) -> list[tuple[int, ...]]:
    """The shapes of `values` for one image of `resolution` pixels."""
    dtype = "uint8" if normalizes(graph) else "float32"
    image = jax.ShapeDtypeStruct((1, resolution, resolution, 3), dtype)
    return [value.shape for value in jax.eval_shape(lambda x: values(graph, x), image)]


def _apply(operation: Operation, x: jax.Array, *others: jax.Array) -> jax.Array:
    match operation:
        case Normalize(mean, std):
            return normalize_images(x, mean, std)
        case Conv():
            return _activate(
                operation.act, _convolve(operation, x) + operation.bias[None, None, None]
            )
        case SqueezeExcite(reduce, reduce_bias, expand, expand_bias):
            y = jax.nn.relu(x.mean((1, 2)) @ reduce + reduce_bias[None]) @ expand
            y = jax.nn.hard_sigmoid(y + expand_bias[None])
            return x * y[:, None, None, :]
        case Add(act):
            return _activate(act, x + others[0])
        case MaxPool():
            return conv.max_pool(x, size=3, stride=2)
        case Halve():
            return halve(x)
        case Mean():
            return x.mean((1, 2))
        case Dense(weight, bias, act):
            return _activate(act, x @ weight + bias[None])


def _convolve(layer: Conv, x: jax.Array) -> jax.Array:
    weight = jnp.asarray(layer.weight)
    if layer.depthwise:
        return conv.depthwise_conv(x, weight, layer.stride)
    if weight.shape[0] == 1:
        return conv.pointwise_conv(x, weight[0, 0])
    return conv.dense_conv(x, weight, layer.stride)


def _activate(act: str | None, x: jax.Array) -> jax.Array:
    return x if act is None else ACTIVATIONS[act](x)
