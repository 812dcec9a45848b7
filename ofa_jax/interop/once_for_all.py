"""Weights of the reference, to Flax variables and back, bit for bit.

Every tensor of a state dict has one place in our variables; `_entries` lists the pairs, and both
directions read that list.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.elastic import matrix_name
from ofa_jax.errors import InputError
from ofa_jax.files import short
from ofa_jax.network import Network, build_subnet, build_supernet
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.topology import Conv, Dense, Layer, SqueezeExcite

Tree = Any
# Of the images that the reference trains on. Source: its `ImagenetDataProvider`.
NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
WEIGHTED = Conv | SqueezeExcite | Dense
CENTER_CROP = 0.875  # share of the resized image's side that its evaluation keeps


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


def from_once_for_all(
    state_dict: Mapping[str, Any], space: SearchSpace, arch: Arch | None = None
) -> Tree:
    """Flax variables {"params", "batch_stats"} of a state dict of the reference.

    Args:
      state_dict: name -> array (NumPy, JAX or PyTorch), in the old or the new naming
        (`mobile_inverted_conv` or `conv`, `.bn.bn.` or `.bn.`); counters of batches are ignored.
      space: the space the net was built for, `num_classes` included.
      arch: for the weights of a specialised net, its arch (see `arch_from_net_config`): the
        result is then the subnet's, as `extract` gives it. Without, they are a supernet's.

    Raises:
      ValueError: missing, unknown or wrongly shaped tensors, by name.
    """
    tensors = {_short(name): value for name, value in state_dict.items()}
    tensors = {name: v for name, v in tensors.items() if not name.endswith("num_batches_tracked")}
    net = build_supernet(space) if arch is None else build_subnet(space, arch)
    entries = {_short(entry.name): entry for entry in _entries(net, elastic=arch is None)}
    owner = space.name if arch is None else f"this arch of {space.name}"
    _check_names("missing", sorted(entries.keys() - tensors.keys()), owner)
    _check_names("unknown", sorted(tensors.keys() - entries.keys()), owner)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    shapes = jax.eval_shape(
        net.init, jax.random.key(0), image, space.largest() if arch is None else None
    )
    variables: Tree = {}
    wrong = []
    for name, entry in entries.items():
        shape = tuple(tensors[name].shape)
        # Of no size in memory: files may say any shape.
        like = np.broadcast_to(np.int8(0), _at(shapes, entry.path).shape)
        expected = LAYOUTS[entry.layout][1](like).shape
        if shape != expected:
            wrong.append(f"{entry.name} is {shape}, not {expected}")
        else:
            array = LAYOUTS[entry.layout][0](_numpy(tensors[name], entry.name))
            _put(variables, entry.path, jnp.asarray(array, jnp.float32))
    _check_names("wrongly shaped", wrong, owner)
    return variables


def to_once_for_all(
    variables: Tree, space: SearchSpace, arch: Arch | None = None
) -> dict[str, np.ndarray]:
    """The reference's state dict (its new naming) of Flax variables; `from_once_for_all` inverted.

    Args:
      variables: {"params", "batch_stats"}; or {"params"} alone, such as a tree of gradients.
      space: the variables' space.
      arch: where the variables are an extracted subnet's, its arch.

    Raises:
      ValueError: a tree that lacks a parameter of the space.
    """
    net = build_supernet(space) if arch is None else build_subnet(space, arch)
    state_dict = {}
    for entry in _entries(net, elastic=arch is None):
        if entry.path[0] not in variables:
            continue
        try:
            array = np.asarray(_at(variables, entry.path))
        except KeyError as error:
            raise InputError(f"variables lack {'/'.join(entry.path)}, {entry.name}") from error
        state_dict[entry.name] = np.ascontiguousarray(LAYOUTS[entry.layout][1](array))
        if entry.name.endswith("running_var"):  # a counter that nothing reads, but strict loading
            counter = entry.name.replace("running_var", "num_batches_tracked")
            state_dict[counter] = np.zeros((), np.int64)
    return state_dict


def _entries(net: Network, elastic: bool) -> Iterator[Entry]:
    """Every tensor of the reference's counterpart of `net`, a supernet where `elastic`."""
    layers = [layer for layer in net.layers if isinstance(layer.operation, WEIGHTED)]
    if not all(layer.reference for layer in layers):
        raise InputError(f"{net.space.name} is of a family that once-for-all does not have")
    for layer, name in zip(layers, _numbered(layers), strict=True):
        # The reference's elastic layers wrap the plain ones, so their names come twice.
        wrapped = elastic and any(size.genes for size in layer.sizes)
        match layer.operation:
            case Conv():
                yield from _conv_bn(name, layer.operation, wrapped)
            case SqueezeExcite(path):
                for part in ("reduce", "expand"):
                    unit = ("params", *path.split("/"), part)
                    yield Entry(f"{name}.{part}.weight", (*unit, "kernel"), "pointwise")
                    yield Entry(f"{name}.{part}.bias", (*unit, "bias"), "same")
            case Dense(path, bias=True):
                unit, name = ("params", *path.split("/")), f"{name}.linear" if wrapped else name
                yield Entry(f"{name}.weight", (*unit, "kernel"), "linear")
                yield Entry(f"{name}.bias", (*unit, "bias"), "same")
            case Dense(path):  # there a convolution of one pixel
                yield Entry(f"{name}.weight", ("params", *path.split("/"), "kernel"), "pointwise")


def _numbered(layers: Sequence[Layer]) -> Iterator[str]:
    """The modules' names; where some are left out, those after them have smaller numbers."""
    seen: dict[str, dict[str, int]] = {}
    for layer in layers:
        match = re.fullmatch(r"(\w+\.)(\d+)(.*)", layer.reference)
        if match is None:
            yield layer.reference
        else:
            numbers = seen.setdefault(match[1], {})
            yield f"{match[1]}{numbers.setdefault(match[2], len(numbers))}{match[3]}"


def _conv_bn(name: str, layer: Conv, wrapped: bool) -> Iterator[Entry]:
    conv, bn = ("conv.conv", "bn.bn") if wrapped else ("conv", "bn")
    path = tuple(layer.path.split("/"))
    layout = "conv" if layer.depthwise or layer.kernel.most > 1 else "pointwise"
    yield Entry(f"{name}.{conv}.weight", ("params", *path, "conv", "kernel"), layout)
    yield Entry(f"{name}.{bn}.weight", ("params", *path, "bn", "scale"), "same")
    yield Entry(f"{name}.{bn}.bias", ("params", *path, "bn", "bias"), "same")
    yield Entry(f"{name}.{bn}.running_mean", ("batch_stats", *path, "bn", "mean"), "same")
    yield Entry(f"{name}.{bn}.running_var", ("batch_stats", *path, "bn", "var"), "same")
    for smaller, larger in itertools.pairwise(layer.kernel.choices):
        matrix = matrix_name(larger, smaller)
        yield Entry(f"{name}.conv.{matrix}", ("params", *path, "conv", matrix), "same")


def _short(name: str) -> str:
    """A tensor's name without what differs between the reference's old and new files."""
    name = name.replace(".mobile_inverted_conv.", ".conv.").replace(".bn.bn.", ".bn.")
    name = name.replace(".linear.linear.", ".linear.")
    while ".conv.conv.weight" in name:
        name = name.replace(".conv.conv.weight", ".conv.weight")
    return name


def _numpy(value: Any, name: str) -> np.ndarray:
    """The tensor as float32; `ValueError`, by its name, where that is not what it holds."""
    try:
        if hasattr(value, "detach"):  # a PyTorch tensor, perhaps on a device or with a gradient
            value = value.detach().cpu().to_dense()
            value = value if value.is_complex() else value.float()  # NumPy has no bfloat16
        array = np.asarray(value)
        if not any(jnp.issubdtype(array.dtype, t) for t in (np.floating, np.integer, np.bool_)):
            raise TypeError(f"of type {array.dtype}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{name} holds no real numbers: {short(error)}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds what is no finite number")
    return array


def _at(tree: Tree, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _check_names(what: str, names: list[str], owner: str) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        listed = ", ".join(short(name) for name in names[:5])
        raise InputError(f"{len(names)} {what} tensors for {owner}: {listed}{more}")
