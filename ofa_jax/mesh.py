"""Devices: one mesh axis, "data", over all of them; the state is replicated, batches are split."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ofa_jax.errors import InputError

Tree = Any
AXIS = "data"


def data_mesh(count: int = 0, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `count` of these devices, by default all, equally many from each process.

    Raises:
      ValueError: more devices than there are, or a number that the processes cannot share.
    """
    # By process, so that each one's part of a batch lies together.
    chips = sorted(devices or jax.devices(), key=lambda chip: (chip.process_index, chip.id))
    processes = len({chip.process_index for chip in chips})
    if count > len(chips):
        raise InputError(f"parallel.devices={count}: there are {len(chips)} devices")
    if count % processes:
        raise InputError(
            f"parallel.devices={count}: expected a multiple of the {processes} processes"
        )
    each = (count or len(chips)) // processes
    by_process = np.asarray(chips).reshape(processes, -1)
    return Mesh(by_process[:, :each].reshape(-1), (AXIS,))


def platform(devices: Mesh) -> str:
    """What the devices are: "cpu", "gpu" or "tpu"."""
    return devices.devices.flat[0].platform


def best_dtype(requested: str, device: jax.Device) -> str:
    """What `requested` is on a device: "auto" takes bfloat16 where the device has units for it.

    TPUs have, and GPUs but for NVIDIA's before compute capability 8.0, such as Colab's T4.
    """
    if requested != "auto":
        return requested
    capability = str(getattr(device, "compute_capability", ""))  # of AMD's "gfx90a"
    is_old = capability[:1].isdigit() and float(capability) < 8
    return "float32" if device.platform == "cpu" or is_old else "bfloat16"


def check_batch(devices: Mesh, batch_size: int, micro_steps: int = 1) -> None:
    """Raises `ValueError` unless a batch divides by devices and their micro-steps."""
    if batch_size % (devices.size * micro_steps):
        each = f" times parallel.micro_steps={micro_steps}" if micro_steps > 1 else ""
        raise InputError(
            f"data.batch_size={batch_size}: expected a multiple of the {devices.size} devices{each}"
        )


def shard(devices: Mesh) -> tuple[int, int]:
    """(index, count) of this process among those that share the mesh: its part of each batch."""
    owners = sorted({chip.process_index for chip in devices.devices.flat})
    return owners.index(jax.process_index()), len(owners)


def replicate(devices: Mesh, tree: Tree) -> Tree:
    """A copy of the tree, which every process holds, on every device."""
    return place(tree, jax.tree.map(lambda _: replicated(devices), tree))


def place(tree: Tree, shardings: Tree) -> Tree:
    """Puts a tree that every process holds on the devices, each array by its sharding."""

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

    return jax.tree.map(put, tree, shardings)


def replicated(devices: Mesh) -> NamedSharding:
    """The sharding of what every device has a copy of."""
    return NamedSharding(devices, P())


def spread(devices: Mesh, array: Any) -> NamedSharding:
    """The sharding of an array cut along its longest axis that divides by the devices."""
    axes = [None] * array.ndim
    longest = sorted(range(array.ndim), key=lambda axis: -array.shape[axis])
    for axis in longest:
        if array.shape[axis] % devices.size == 0:
            return NamedSharding(devices, P(*axes[:axis], AXIS))
    return replicated(devices)


def shard_batch(devices: Mesh, batch: Tree) -> Tree:
    """This process's part of a batch, split over the devices along its first axis."""
    return jax.make_array_from_process_local_data(NamedSharding(devices, P(AXIS)), batch)
