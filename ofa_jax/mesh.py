"""Devices: one mesh axis, "data", over all of them; the state is replicated, batches are split."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = Any


def data_mesh(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the given devices, by default all there are.

    Raises:
      ValueError: a batch that does not divide by the number of devices.
    """
    chips = np.asarray(jax.devices() if devices is None else devices)
    if batch_size % chips.size:
        raise ValueError(
            f"data.batch_size={batch_size}: expected a multiple of the {chips.size} devices"
        )
    return Mesh(chips, ("data",))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """A copy of the tree on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard_batch(mesh: Mesh, batch: Tree) -> Tree:
    """This process's part of a batch, split over the devices along its first axis."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), batch)
