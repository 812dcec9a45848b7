"""The ONNX file in int8: weights by channel, activations by ranges seen on training images."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from onnxruntime import quantization
from onnxruntime.quantization import shape_inference

from ofa_jax.deploy import to_onnx
from ofa_jax.deploy.graph import Graph
from ofa_jax.deploy.to_onnx import load

__all__ = ["load", "write"]


def write(graph: Graph, resolution: int, path: Path, batches: Iterable[np.ndarray]) -> None:
    """Writes the model with quantise and dequantise nodes, calibrated on `batches` of images."""
    with tempfile.TemporaryDirectory() as scratch:
        plain, ready = Path(scratch, "plain.onnx"), Path(scratch, "ready.onnx")
        to_onnx.write(graph, resolution, plain)
        shape_inference.quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            path,
            Batches(batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


class Batches(quantization.CalibrationDataReader):
    """Images as the runtime's calibration asks for them."""

    def __init__(self, batches: Iterable[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self._batches, None)
        return None if images is None else {to_onnx.INPUT: to_onnx.as_input(images)}
