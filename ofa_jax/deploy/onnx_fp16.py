"""The ONNX file in float16: half the size, for devices that compute in it. Its ends are float32."""

from pathlib import Path

from ofa_jax.deploy import to_onnx
from ofa_jax.deploy.graph import Graph
from ofa_jax.deploy.to_onnx import load

__all__ = ["load", "write"]


def write(graph: Graph, resolution: int, path: Path, *, batch: int | None = None) -> None:
    """Writes the model as `to_onnx.write` does, with float16 inside."""
    to_onnx.write(graph, resolution, path, batch=batch, half=True)
