"""StableHLO: one file for CPU, CUDA and TPU that needs nothing but jax to run."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax import export

from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy.graph import Graph

PLATFORMS = ("cpu", "cuda", "tpu")
PLACES = "jax_traceback_in_locations_limit"


def write(graph: Graph, resolution: int, path: Path, *, batch: int | None = None) -> None:
    """Writes what `jax.export.deserialize` reads: `[batch, height, width, 3]` to logits.

    A fixed `batch` is what compilers without symbolic shapes take, such as IREE's.
    """
    dtype = np.dtype("uint8" if graph_lib.normalizes(graph) else "float32")
    shape = export.symbolic_shape(f"{batch or 'batch'}, {resolution}, {resolution}, 3")

    def network(images: jax.Array) -> jax.Array:
        return graph_lib.run(graph, images)

    images = jax.ShapeDtypeStruct(shape, dtype)
    with _without_places():
        exported = export.export(jax.jit(network), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Keeps where our sources lie on this machine, line by line, out of what is exported."""
    before = getattr(jax.config, PLACES)
    jax.config.update(PLACES, 0)
    try:
        yield
    finally:
        jax.config.update(PLACES, before)


def oldest_jax(batch: int | None, written_by: str = jax.__version__) -> str:
    """The oldest release of jax that loads a file, by what `benchmarks/jax_versions.py` finds.

    Until November 2025 (0.8.1) jax kept the number of devices in a field that is no longer written.
    From 0.12 on, a file of any batch checks the batch by an operation that older releases do not
    know. What a release beyond those tried writes, itself loads.

    Args:
      batch: the file's batch where it is fixed.
      written_by: the release that writes it.
    """
    major, minor = map(int, written_by.split(".")[:2])
    if (major, minor) > (0, 12):
        return written_by
    return "0.11.0" if (major, minor) == (0, 12) and batch is None else "0.8.2"


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file's network as a function of `[batch, height, width, 3]`, compiled here."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))
