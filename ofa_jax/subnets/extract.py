"""Extraction: a subnet of the supernet as a plain network with small arrays of its own."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ofa_jax import elastic
from ofa_jax.errors import InputError
from ofa_jax.network import Network, build_subnet
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.topology import Conv

Tree = Any


def extract(space: SearchSpace, variables: Tree, arch: Arch) -> tuple[Network, Tree]:
    """Cuts one subnet out of the supernet, without retraining.

    Depthwise filters go through their kernel transforms once; everything else is the first
    channels of the supernet's arrays. The statistics are the supernet's: calibrate the result
    before use.

    Args:
      space: the supernet's space.
      variables: {"params", "batch_stats"} of the supernet.
      arch: one concrete arch.

    Returns:
      `(subnet, variables)`, for `subnet.apply(variables, images)`.

    Raises:
      ValueError: an arch or variables of another space.
    """
    subnet = build_subnet(space, arch)
    shapes = jax.eval_shape(subnet.init, jax.random.key(0), _IMAGE)
    # On the host: slicing on the device would compile one small program per new shape.
    variables = jax.tree.map(np.asarray, jax.device_get(variables))
    params, arch = variables["params"], jax.tree.map(np.asarray, arch)
    for layer in space.layers:
        conv = layer.operation
        if isinstance(conv, Conv) and conv.kernel.genes and layer.kept.of(arch):
            size = int(conv.kernel.of(arch))
            params = _with_kernel(params, conv.path.split("/"), conv.kernel.choices, size)
    sources = {"params": params, "batch_stats": variables["batch_stats"]}
    sliced = jax.tree_util.tree_map_with_path(
        lambda path, shape: _prefix(sources, path, shape.shape), shapes
    )
    return subnet, jax.device_put(sliced)


_IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")


def _with_kernel(params: Tree, path: Sequence[str], kernels: tuple[int, ...], size: int) -> Tree:
    """The parameters with the depthwise filter at `path` transformed to kernel `size`."""
    if path and path[0] not in params:
        return params  # `_prefix` says
    if path:
        inner = _with_kernel(params[path[0]], path[1:], kernels, size)
        return {**params, path[0]: inner}
    conv = dict(params["conv"])
    weight = elastic.transform_kernel(conv.pop("kernel"), conv, kernels, size)
    return {**params, "conv": {"kernel": weight}}


def _prefix(sources: Tree, path: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The leading `shape` of the supernet's array at `path`."""
    array = sources
    for entry in path:
        if entry.key not in array:
            raise InputError(f"variables lack {jax.tree_util.keystr(path)}: not of this space")
        array = array[entry.key]
    if array.ndim != len(shape) or any(a < s for a, s in zip(array.shape, shape, strict=True)):
        raise InputError(
            f"variables{jax.tree_util.keystr(path)} has shape {array.shape}: the space needs at"
            f" least {shape}"
        )
    return array[tuple(slice(n) for n in shape)]
