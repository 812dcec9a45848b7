"""What a search may limit: the cost of a subnet, by `config.search.cost`."""

import functools
from pathlib import Path
from typing import Any

import jax

from ofa_jax import mesh
from ofa_jax.errors import InputError
from ofa_jax.files import read_object, shown
from ofa_jax.names import place
from ofa_jax.run import processes
from ofa_jax.run.config import Config
from ofa_jax.run.metrics import track
from ofa_jax.search.cost import macs, params
from ofa_jax.search.functions import Function
from ofa_jax.search.latency import load_latency_table
from ofa_jax.search.memory import activation_bytes
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.subnets.latency import build_latency_table, machine

# What a person reads each cost in: name, and how much one is.
UNITS = {"macs": ("M MACs", 1e6), "params": ("M parameters", 1e6),
         "memory": ("KB of activations", 1e3), "latency": ("ms", 1.0)}  # fmt: skip


def cost_function(config: Config, space: SearchSpace, directory: Path) -> Function:
    """`config.search.cost` as a function of an arch and a resolution.

    For latency without a table, one of this machine is measured, once.
    """
    settings = config.search
    if settings.cost != "latency":
        counted = {"macs": macs, "memory": activation_bytes, "params": _params}[settings.cost]
        return functools.partial(counted, space)
    path = directory / "latency.json"
    if settings.latency_table:
        path = place("search.latency_table", settings.latency_table)
    if not settings.latency_table and not processes.from_first(path.exists):
        processes.from_first(
            lambda: build_latency_table(
                space, search_resolutions(config), path, batch_size=settings.latency_batch,
                dtype=_dtype(config), track=track,
            ).source
        )  # fmt: skip
    return load_latency_table(path, space)


def _params(space: SearchSpace, arch: Arch, resolution: Any) -> Any:
    return params(space, arch)


def _dtype(config: Config) -> str:
    """What latency is measured in: as steps are computed here."""
    return mesh.best_dtype(config.train.dtype, jax.devices()[0])


def check_measured_here(config: Config, directory: Path) -> None:
    """Raises `ValueError` if latency is to be measured, and was elsewhere, or of other calls.

    Args:
      config: the run's.
      directory: of its search.
    """
    settings, path = config.search, directory / "latency.json"
    if settings.cost != "latency" or settings.latency_table or not path.exists():
        return
    stored, here = read_object(path), machine()
    theirs = stored.get("machine")
    theirs = theirs if isinstance(theirs, dict) else {}
    pairs = {
        "batch_size": (stored.get("batch_size"), settings.latency_batch),
        "dtype": (stored.get("dtype"), _dtype(config)),
        **{key: (theirs.get(key), here[key]) for key in ("processor", "device")},
    }
    for key, (measured, wanted) in pairs.items():
        if measured != wanted:
            raise InputError(
                f"{path} was measured with {key} {shown(measured)}, not {shown(wanted)}: move it"
                " away to measure again, or give it as search.latency_table"
            )


def search_resolutions(config: Config) -> tuple[int, ...]:
    """The resolutions a search chooses from, ascending."""
    return tuple(sorted(set(config.search.resolutions or config.data.resolutions)))
