"""Batch-norm calibration: a subnet's own statistics, without which its accuracy is near zero.

The supernet's running statistics belong to no subnet in particular (they follow whichever was
sampled last), so every subnet is calibrated before it is judged or deployed.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.network import Network
from ofa_jax.space import Arch, stack

Tree = Any
GROUP = 20  # archs at most; fewer take the same program, and cost less


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
    if arch is None:
        moments_of = functools.partial(batch_moments, net, variables, None)
        return _averaged(moments_of, variables["batch_stats"], batches)
    return _first(calibrate_each(net, variables, group([arch]), batches))


class Group(NamedTuple):
    """Archs that one call goes through, one after the other: stacked `[GROUP, ...]`, and how many.

    Always so many rows, of which the first `number` are taken: one program for any number of archs.
    What all archs have in common, such as the first convolution, is computed once for a group.
    """

    stacked: Arch
    number: np.int32


def group(archs: Sequence[Arch]) -> Group:
    """One to GROUP archs as a group.

    Raises:
      ValueError: none, or more.
    """
    if not 0 < len(archs) <= GROUP:
        raise ValueError(f"{len(archs)} archs: expected 1 to {GROUP} at a time")
    return Group(stack([*archs, *[archs[-1]] * (GROUP - len(archs))]), np.int32(len(archs)))


def of_each(function: Callable[..., Tree], archs: Group, empty: Tree, *rows: Tree) -> Tree:
    """`function(arch, *rows)` of each arch of a group, in the rows of `empty`; inside `jit`."""

    def add(row: jax.Array, results: Tree) -> Tree:
        own = jax.tree.map(lambda leaf: leaf[row], (archs.stacked, *rows))
        return jax.tree.map(lambda all_, one: all_.at[row].set(one), results, function(*own))

    return jax.lax.fori_loop(0, archs.number, add, empty)


def calibrate_each(
    net: Network, variables: Tree, archs: Group, batches: Iterable[jax.Array]
) -> Tree:
    """`calibrate` of a group, stacked `[GROUP, ...]`: each batch is sent and called for once."""
    return _averaged(
        functools.partial(batch_moments_of_each, net, variables, archs),
        variables["batch_stats"],
        batches,
    )


def _averaged(
    moments_of: Callable[[jax.Array], Tree], batch_stats: Tree, batches: Iterable[jax.Array]
) -> Tree:
    """The mean of the batches' moments where channels are active, else what is in `batch_stats`."""
    total, seen, active = None, 0, None
    for images in map(jnp.asarray, batches):
        moments = moments_of(images)
        active = moments["active"]
        total = _add_weighted(total, moments["stats"], images.shape[0])
        seen += images.shape[0]
    if total is None:
        raise InputError("calibrate got no batches: expected at least one batch of images")
    return _mean(total, seen, active, batch_stats)


@functools.partial(jax.jit, static_argnums=0)
def batch_moments_of_each(
    net: Network, variables: Tree, archs: Group, images: jax.Array
) -> dict[str, Tree]:
    """`batch_moments` of a group, stacked."""

    def empty(dtype: Any) -> Tree:
        return jax.tree.map(
            lambda stats: jnp.zeros((GROUP, *stats.shape), dtype), variables["batch_stats"]
        )

    def moments(arch: Arch) -> dict[str, Tree]:
        return batch_moments(net, variables, arch, images)

    return of_each(moments, archs, {"stats": empty(jnp.float32), "active": empty(bool)})


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


@jax.jit
def _first(stacked: Tree) -> Tree:
    return jax.tree.map(lambda rows: rows[0], stacked)
