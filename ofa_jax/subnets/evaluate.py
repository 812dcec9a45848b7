"""Accuracy and loss of subnets, each with its own batch statistics."""

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ofa_jax.errors import InputError
from ofa_jax.mesh import data_mesh, replicate, shard_batch
from ofa_jax.network import Network
from ofa_jax.normalization import IMAGENET, Normalization, normalize_images
from ofa_jax.space import Arch, Choices, SearchSpace
from ofa_jax.subnets.calibrate import GROUP, Group, group, of_each

Tree = Any
Batch = dict[str, np.ndarray]


def evaluate(
    net: Network,
    variables: Tree,
    arch: Arch | None,
    batches: Iterable[Batch],
    *,
    normalization: Normalization = IMAGENET,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """{"top1", "loss"} of one subnet: share correct, mean nats.

    Args:
      net: the supernet, or a subnet with `arch` None.
      variables: {"params", "batch_stats"}, calibrated for the arch.
      arch: the subnet to evaluate.
      batches: {"image": `[batch, height, width, 3]` uint8, "label": `[batch]` int32}.
      normalization: of the images.
      mesh: devices over which each batch is split; default all of them.

    Raises:
      ValueError: no image at all.
    """
    devices = data_mesh() if mesh is None else mesh
    weighted = ({"weight": np.ones(len(b["label"]), np.float32), **b} for b in batches)
    if arch is None:
        return measure_one(net, variables, weighted, normalization, devices)
    stats = jax.tree.map(lambda a: jnp.stack([a] * GROUP), variables["batch_stats"])
    archs, params = group([arch]), variables["params"]
    return measure(net, params, stats, archs, weighted, normalization, devices)[0]


def grid(space: SearchSpace, choices: Choices | None = None) -> dict[str, Arch]:
    """The corners of the open choices by name: "largest", "smallest" of the space, "d2-e6-k3"."""
    opened = space.open_choices() if choices is None else choices
    ends = []
    for field in space.dimensions:
        mask = np.asarray(getattr(opened, field))
        ends.append(sorted({int(np.argmax(mask)), len(mask) - 1 - int(np.argmax(mask[::-1]))}))
    corners = [dict(zip(space.dimensions, c, strict=True)) for c in itertools.product(*ends)]
    return {corner_name(space, indices): space.everywhere(indices) for indices in corners}


def corner_name(space: SearchSpace, indices: dict[str, int]) -> str:
    """The name of the subnet with one choice index for each dimension."""
    elastic = {f: getattr(space, f"{f}s") for f in ("depth", "expand", "kernel", "width")}
    elastic = {field: values for field, values in elastic.items() if len(values) > 1}
    if all(indices[field] == len(values) - 1 for field, values in elastic.items()):
        return "largest"
    if not any(indices[field] for field in elastic):
        return "smallest"
    return "-".join(f"{field[0]}{values[indices[field]]:g}" for field, values in elastic.items())


def measure(
    net: Network,
    params: Tree,
    batch_stats: Tree,
    archs: Group,
    batches: Iterable[Batch],
    normalization: Normalization,
    devices: Mesh,
) -> list[dict[str, float]]:
    """{"top1", "loss"} of each calibrated subnet of a group: share correct, mean nats.

    Args:
      net: the supernet.
      params: of the net.
      batch_stats: of each subnet, stacked, as `calibrate_each` gives them.
      archs: of the subnets.
      batches: {"image", "label", "weight"}, this process's part of each.
      normalization: of the images.
      devices: each batch is split over them.

    Raises:
      ValueError: no image could be read.
    """
    sums = [
        _sums_of_each(net, normalization, params, batch_stats, archs, shard_batch(devices, batch))
        for batch in batches
    ]
    return [_figures(row) for row in _total(sums)[: archs.number]]


def measure_one(
    subnet: Network,
    variables: Tree,
    batches: Iterable[Batch],
    normalization: Normalization,
    devices: Mesh,
) -> dict[str, float]:
    """`measure` of one extracted subnet with its own variables."""
    placed, sums = replicate(devices, variables), []
    for batch in batches:
        split = shard_batch(devices, batch)
        logits = logits_of(subnet, normalization, placed, None, split["image"])
        sums.append(_count(logits, split["label"], split["weight"]))
    return _figures(_total(sums))


def _total(sums: list[jax.Array]) -> np.ndarray:
    if not sums:
        raise InputError("no image of the split could be read")
    return np.sum(jax.device_get(sums), axis=0)


def _figures(sums: np.ndarray) -> dict[str, float]:
    correct, loss, count = sums
    if not count:
        raise InputError("no image of the split could be read")
    return {"top1": float(correct / count), "loss": float(loss / count)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums_of_each(
    net: Network,
    normalization: Normalization,
    params: Tree,
    batch_stats: Tree,
    archs: Group,
    batch: Any,
) -> jax.Array:
    """`_count` of each subnet of a group, `[GROUP, 3]`."""

    def sums(arch: Arch, stats: Tree) -> jax.Array:
        variables = {"params": params, "batch_stats": stats}
        logits = logits_of(net, normalization, variables, arch, batch["image"])
        return _count(logits, batch["label"], batch["weight"])

    return of_each(sums, archs, jnp.zeros((GROUP, 3), jnp.float32), batch_stats)


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits_of(
    net: Network,
    normalization: Normalization,
    variables: Tree,
    arch: Arch | None,
    images: jax.Array,
) -> jax.Array:
    """Logits `[batch, classes]` of uint8 images `[batch, height, width, 3]`."""
    logits: Any = net.apply(variables, normalize_images(images, *normalization), arch)
    return logits


@jax.jit
def _count(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Images correct, the sum of their losses and their number, `[3]`."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (logits.argmax(-1).astype(labels.dtype) == labels).astype(weight.dtype)
    return jnp.stack([(correct * weight).sum(), (losses * weight).sum(), weight.sum()])
