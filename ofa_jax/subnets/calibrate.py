"""Batch-norm calibration: a subnet's own statistics, without which its accuracy is near zero.

The supernet's running statistics belong to no subnet in particular (they follow whichever was
drawn last), so every subnet is calibrated before it is judged or deployed.
"""

import functools
from collections.abc import Callable, Iterable
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
    return _averaged(
        functools.partial(batch_moments, net, variables, arch), variables["batch_stats"], batches
    )


def calibrate_each(
    net: Network, variables: Tree, archs: Arch, batches: Iterable[jax.Array]
) -> Tree:
    """`calibrate` of many archs, stacked `[n, ...]`: each batch is sent and called for once."""
    return _averaged(
        functools.partial(batch_moments_of_each, net, variables, archs),
        jax.tree.map(lambda stats: stats[None], variables["batch_stats"]),
        batches,
    )


def _averaged(
    moments_of: Callable[[jax.Array], Tree], batch_stats: Tree, batches: Iterable[jax.Array]
) -> Tree:
    """The mean of the batches' moments where channels are active, else what is in `batch_stats`."""
    total, images_seen, active = None, 0, None
    for images in batches:
        count = images.shape[0]
        moments = moments_of(jnp.asarray(images))
        active = moments["active"]
        total = _add_weighted(total or _zeros(moments["stats"]), moments["stats"], count)
        images_seen += count
    if total is None:
        raise ValueError("calibrate got no batches: expected at least one batch of images")
    return jax.tree.map(
        lambda on, sum_, old: jnp.where(on, sum_ / images_seen, old), active, total, batch_stats
    )


@functools.partial(jax.jit, static_argnums=0)
def batch_moments_of_each(
    net: Network, variables: Tree, archs: Arch, images: jax.Array
) -> dict[str, Tree]:
    """`batch_moments` of many archs, one after the other: at its own price where that differs."""
    return jax.lax.map(lambda arch: batch_moments(net, variables, arch, images), archs)


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


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, tree)


@jax.jit
def _add_weighted(total: Tree, stats: Tree, count: int) -> Tree:
    return jax.tree.map(lambda t, s: t + s * count, total, stats)
