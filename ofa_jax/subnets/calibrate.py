"""Batch-norm calibration: a subnet's own statistics, without which its accuracy is near zero.

The supernet's running statistics belong to no subnet in particular (they follow whichever was
drawn last), so every subnet is calibrated before it is judged or deployed.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ofa_jax.models import Network
from ofa_jax.space import Arch

Tree = Any


def calibrate(
    net: Network, variables: Tree, arch: Arch | None, batches: Iterable[jax.Array]
) -> Tree:
    """New batch statistics for one arch, from training images of the resolution it will run at.

    A forward pass in train mode over every batch; the result is the mean of the batch means and
    *biased* variances, weighted by batch size. Channels outside the arch keep their statistics.
    Source: `set_running_statistics` of the reference.

    Args:
      net: the supernet, or a subnet with `arch` None.
      variables: {"params", "batch_stats"}; untouched.
      arch: the subnet to calibrate.
      batches: normalised float32 images `[batch, height, width, 3]`, a few hundred each.

    Returns:
      The new "batch_stats" tree.

    Raises:
      ValueError: no batch at all.
    """
    (stats,) = calibrate_each(net, variables, [arch], batches)
    return stats


def calibrate_each(
    net: Network, variables: Tree, archs: Sequence[Arch | None], batches: Iterable[jax.Array]
) -> list[Tree]:
    """`calibrate` of many archs: each batch is sent and called for once.

    One arch after the other by one program, whatever their number: it is compiled once, and an arch
    costs its own price where that differs.
    """
    totals: list[Tree] = [None] * len(archs)
    active: list[Tree] = []
    seen = 0
    for images in map(jnp.asarray, batches):
        active = []
        for i, arch in enumerate(archs):
            moments = batch_moments(net, variables, arch, images)
            totals[i] = _add_weighted(totals[i], moments["stats"], images.shape[0])
            active.append(moments["active"])
        seen += images.shape[0]
    if not seen:
        raise ValueError("calibrate got no batches: expected at least one batch of images")
    return [
        _mean(total, seen, on, variables["batch_stats"])
        for total, on in zip(totals, active, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def batch_moments(
    net: Network, variables: Tree, arch: Arch | None, images: jax.Array
) -> dict[str, Tree]:
    """{"stats", "active"}: one batch's statistics and which channels of them count.

    Both have the structure of "batch_stats"; every batch norm normalises by its own batch.
    """
    _, new = net.apply(variables, images, arch, train=True, mutable=["batch_stats", "moments"])
    return {
        field: jax.tree_util.tree_map_with_path(
            functools.partial(_moment, new["moments"], field), variables["batch_stats"]
        )
        for field in ("stats", "active")
    }


def _moment(moments: Tree, field: str, path: Any, _: jax.Array) -> jax.Array:
    # batch_stats/.../bn/mean has its moment at the same path, its mask beside it.
    for entry in path[:-1]:
        moments = moments[entry.key]
    return moments["active" if field == "active" else path[-1].key]


@jax.jit
def _add_weighted(total: Tree | None, stats: Tree, count: int) -> Tree:
    weighted = jax.tree.map(lambda s: s * count, stats)
    return weighted if total is None else jax.tree.map(jnp.add, total, weighted)


@jax.jit
def _mean(total: Tree, seen: int, active: Tree, batch_stats: Tree) -> Tree:
    """The batches' mean where channels are active, else what is in `batch_stats`."""
    return jax.tree.map(
        lambda on, sum_, old: jnp.where(on, sum_ / seen, old), active, total, batch_stats
    )
