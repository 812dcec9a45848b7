"""The ONNX file in int8: weights by channel, activations by ranges seen on training images."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization import shape_inference

from ofa_jax.deploy import to_onnx
from ofa_jax.deploy.batches import of_size
from ofa_jax.deploy.graph import Graph
from ofa_jax.deploy.to_onnx import load

__all__ = ["load", "write"]


def write(
    graph: Graph, resolution: int, path: Path, batches: Iterable[np.ndarray],
    *, batch: int | None = None,
) -> None:  # fmt: skip
    """Writes the model with quantise and dequantise nodes, calibrated on `batches` of images."""
    with tempfile.TemporaryDirectory() as scratch:
        plain, ready = Path(scratch, "plain.onnx"), Path(scratch, "ready.onnx")
        to_onnx.write(graph, resolution, plain, batch=batch)
        _bound_swishes(plain)
        shape_inference.quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            path,
            Batches(of_size(batches, batch)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def _bound_swishes(path: Path) -> None:
    """Cuts off what lies below -3 before each HardSwish, which is 0 there.

    Nothing else changes, but the values before it have a smaller range and so finer steps; the
    quantizer drops the Clip itself.
    """
    model = onnx.load(path)
    nodes = list(model.graph.node)
    if not any(node.op_type == "HardSwish" for node in nodes):
        return
    del model.graph.node[:]
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(-3, np.float32), "lowest"))
    for node in nodes:
        if node.op_type == "HardSwish":
            bounded = f"{node.input[0]}_bounded"
            clip = helper.make_node("Clip", [node.input[0], "lowest"], [bounded], name=bounded)
            model.graph.node.append(clip)
            node.input[0] = bounded
        model.graph.node.append(node)
    onnx.save(model, path)


class Batches(quantization.CalibrationDataReader):
    """Images as the runtime's calibration reads them."""

    def __init__(self, batches: Iterable[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self._batches, None)
        return None if images is None else {to_onnx.INPUT: to_onnx.as_input(images)}
