"""StableHLO: one file for CPU, CUDA and TPU that needs nothing but jax to run."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import export

from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy.graph import Graph

PLATFORMS = ("cpu", "cuda", "tpu")


def write(graph: Graph, resolution: int, path: Path) -> None:
    """Writes what `jax.export.deserialize` reads: `[batch, height, width, 3]` to logits."""
    dtype = np.dtype("uint8" if graph_lib.normalizes(graph) else "float32")
    shape = export.symbolic_shape(f"batch, {resolution}, {resolution}, 3")

    def network(images: jax.Array) -> jax.Array:
        return graph_lib.run(graph, images)

    images = jax.ShapeDtypeStruct(shape, dtype)
    exported = export.export(jax.jit(network), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file's network as a function of `[batch, height, width, 3]`, compiled here."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))
