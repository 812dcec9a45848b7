"""A subnet as what every exported file holds: a short list of layers, batch norms folded away.

Nothing is elastic any more, so a network is a handful of operations in a row. The JAX subnet says
what is right; `run` and every exported file are compared with it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import conv, topology
from ofa_jax.layers import activate, halve
from ofa_jax.network import Network
from ofa_jax.normalization import normalize_images
from ofa_jax.topology import Add as Add
from ofa_jax.topology import Halve as Halve
from ofa_jax.topology import MaxPool as MaxPool
from ofa_jax.topology import Mean as Mean

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
    return tuple(Layer(folding.operation(layer), layer.inputs) for layer in subnet.layers)


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


class Folding(NamedTuple):
    """The variables of a subnet, in float64, by the paths of its layers."""

    eps: float
    params: Tree
    stats: Tree

    def operation(self, layer: topology.Layer) -> Operation:
        """What an exported file holds of a layer."""
        match layer.operation:
            case topology.Conv():
                return self.conv(layer.operation)
            case topology.SqueezeExcite(path):
                tree = _at(self.params, path)
                ends = (
                    tree[end][key] for end in ("reduce", "expand") for key in ("kernel", "bias")
                )
                return SqueezeExcite(*map(_float32, ends))
            case topology.Dense(path, act):
                params = _at(self.params, path)
                bias = params.get("bias", np.zeros(params["kernel"].shape[-1]))
                return Dense(_float32(params["kernel"]), _float32(bias), act)
            case Add() | MaxPool() | Halve() | Mean() as same:
                return same

    def conv(self, layer: topology.Conv) -> Conv:
        """A convolution and the batch norm after it."""
        params, stats = _at(self.params, layer.path), _at(self.stats, layer.path)
        factor = params["bn"]["scale"] / np.sqrt(stats["bn"]["var"] + self.eps)
        bias = params["bn"]["bias"] - stats["bn"]["mean"] * factor
        weight = params["conv"]["kernel"]
        if weight.ndim == 2:
            weight = weight[None, None]
        scaled = _float32(weight * factor)
        return Conv(scaled, _float32(bias), layer.stride, layer.act, layer.depthwise)


def _at(tree: Tree, path: str) -> Tree:
    for name in path.split("/"):
        tree = tree[name]
    return tree


def _float32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


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
            return activate(
                operation.act, _convolve(operation, x) + operation.bias[None, None, None]
            )
        case SqueezeExcite(reduce, reduce_bias, expand, expand_bias):
            y = jax.nn.relu(x.mean((1, 2)) @ reduce + reduce_bias[None]) @ expand
            y = jax.nn.hard_sigmoid(y + expand_bias[None])
            return x * y[:, None, None, :]
        case Add(act):
            return activate(act, x + others[0])
        case MaxPool():
            return conv.max_pool(x, size=3, stride=2)
        case Halve():
            return halve(x)
        case Mean():
            return x.mean((1, 2))
        case Dense(weight, bias, act):
            return activate(act, x @ weight + bias[None])


def _convolve(layer: Conv, x: jax.Array) -> jax.Array:
    weight = jnp.asarray(layer.weight)
    if layer.depthwise:
        return conv.depthwise_conv(x, weight, layer.stride)
    if weight.shape[0] == 1:
        return conv.pointwise_conv(x, weight[0, 0])
    return conv.dense_conv(x, weight, layer.stride)
