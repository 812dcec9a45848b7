"""Supernet weights of the reference, to Flax variables and back, bit for bit.

Every tensor of a state dict has one place in our variables; `_entries` lists the pairs, and both
directions read that list.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.elastic import matrix_name
from ofa_jax.models import build_supernet
from ofa_jax.space import Block, SearchSpace

Tree = Any


class Entry(NamedTuple):
    """One tensor: its name in the reference, its path in our variables, and its layout."""

    name: str
    path: tuple[str, ...]
    layout: str


# How a tensor is turned from PyTorch's axes into ours, and back.
LAYOUTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]]
LAYOUTS = {
    "same": (lambda a: a, lambda a: a),
    "conv": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
    "pointwise": (lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),
    "linear": (lambda a: a.T, lambda a: a.T),
}


def from_once_for_all(state_dict: Mapping[str, Any], space: SearchSpace) -> Tree:
    """Flax variables {"params", "batch_stats"} of a reference supernet's state dict.

    Args:
      state_dict: name -> array (NumPy, JAX or PyTorch), in the old or the new naming
        (`mobile_inverted_conv` or `conv`, `.bn.bn.` or `.bn.`); counters of batches are ignored.
      space: the space the net was built for, `num_classes` included.

    Raises:
      ValueError: missing, unknown or wrongly shaped tensors, by name.
    """
    given = {_short(name): value for name, value in state_dict.items()}
    given = {name: v for name, v in given.items() if not name.endswith("num_batches_tracked")}
    entries = {_short(entry.name): entry for entry in _entries(space)}
    _check_names("missing", sorted(entries.keys() - given.keys()), space)
    _check_names("unknown", sorted(given.keys() - entries.keys()), space)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    net = build_supernet(space)
    shapes = jax.eval_shape(net.init, jax.random.key(0), image, space.largest())
    variables: Tree = {}
    wrong = []
    for name, entry in entries.items():
        array = _numpy(given[name])
        expected = LAYOUTS[entry.layout][1](np.empty(_at(shapes, entry.path).shape, np.int8)).shape
        if array.shape != expected:
            wrong.append(f"{entry.name} is {array.shape}, not {expected}")
        else:
            value = jnp.asarray(LAYOUTS[entry.layout][0](array), jnp.float32)
            _put(variables, entry.path, value)
    _check_names("wrongly shaped", wrong, space)
    return variables


def to_once_for_all(variables: Tree, space: SearchSpace) -> dict[str, np.ndarray]:
    """The reference's state dict (its new naming) of Flax variables; `from_once_for_all` inverted.

    Args:
      variables: {"params", "batch_stats"}; or {"params"} alone, such as a tree of gradients.
      space: the variables' space.

    Raises:
      ValueError: a tree that lacks a parameter of the space.
    """
    state_dict = {}
    for entry in _entries(space):
        if entry.path[0] not in variables:
            continue
        try:
            array = np.asarray(_at(variables, entry.path))
        except KeyError as error:
            raise ValueError(f"variables lack {'/'.join(entry.path)}, {entry.name}") from error
        state_dict[entry.name] = np.ascontiguousarray(LAYOUTS[entry.layout][1](array))
        if entry.name.endswith("running_var"):  # a counter that nothing reads, but strict loading
            counter = entry.name.replace("running_var", "num_batches_tracked")
            state_dict[counter] = np.zeros((), np.int64)
    return state_dict


def _entries(space: SearchSpace) -> Iterator[Entry]:
    """Every tensor of the reference's supernet of this space."""
    yield from _conv_bn("first_conv", ("first_conv",), "conv", dynamic=False)
    first = space.first_block
    yield from _block(space, first, "blocks.0.conv", dynamic=False)
    for index, block in enumerate(space.blocks, 1):
        yield from _block(space, block, f"blocks.{index}.conv", dynamic=True)
    # ProxylessNAS has no layer behind the pooling, and calls the one before it by that name.
    head = "final_expand_layer" if space.features else "feature_mix_layer"
    yield from _conv_bn(head, ("final_expand_layer",), "pointwise", dynamic=False)
    if space.features:
        path = ("params", "feature_mix_layer", "kernel")
        yield Entry("feature_mix_layer.conv.weight", path, "pointwise")
    yield Entry("classifier.linear.weight", ("params", "classifier", "kernel"), "linear")
    yield Entry("classifier.linear.bias", ("params", "classifier", "bias"), "same")


def _block(space: SearchSpace, block: Block, name: str, dynamic: bool) -> Iterator[Entry]:
    parts = {"depth_conv": "conv", "point_linear": "pointwise"}
    if block.inverted:
        parts = {"inverted_bottleneck": "pointwise", **parts}
    for part, layout in parts.items():
        yield from _conv_bn(f"{name}.{part}", (block.name, part), layout, dynamic)
    if dynamic:
        for smaller, larger in itertools.pairwise(space.kernels):
            matrix = matrix_name(larger, smaller)
            path = ("params", block.name, "depth_conv", "conv", matrix)
            yield Entry(f"{name}.depth_conv.conv.{matrix}", path, "same")
    for part in ("reduce", "expand") if block.squeezes else ():
        prefix, unit = f"{name}.depth_conv.se.fc.{part}", ("params", block.name, "se", part)
        yield Entry(f"{prefix}.weight", (*unit, "kernel"), "pointwise")
        yield Entry(f"{prefix}.bias", (*unit, "bias"), "same")


def _conv_bn(name: str, path: tuple[str, ...], layout: str, dynamic: bool) -> Iterator[Entry]:
    # The reference's elastic layers wrap the plain ones, so their names come twice.
    conv, bn = ("conv.conv", "bn.bn") if dynamic else ("conv", "bn")
    yield Entry(f"{name}.{conv}.weight", ("params", *path, "conv", "kernel"), layout)
    yield Entry(f"{name}.{bn}.weight", ("params", *path, "bn", "scale"), "same")
    yield Entry(f"{name}.{bn}.bias", ("params", *path, "bn", "bias"), "same")
    yield Entry(f"{name}.{bn}.running_mean", ("batch_stats", *path, "bn", "mean"), "same")
    yield Entry(f"{name}.{bn}.running_var", ("batch_stats", *path, "bn", "var"), "same")


def _short(name: str) -> str:
    """A tensor's name without what differs between the reference's old and new files."""
    name = name.replace(".mobile_inverted_conv.", ".conv.").replace(".bn.bn.", ".bn.")
    name = name.replace(".linear.linear.", ".linear.")
    return name.replace(".conv.conv.weight", ".conv.weight")


def _numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a device or with a gradient
        value = value.detach().cpu()
    return np.asarray(value)


def _at(tree: Tree, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _check_names(what: str, names: list[str], space: SearchSpace) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(
            f"{len(names)} {what} tensors for {space.name}: {', '.join(names[:5])}{more}"
        )
