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
    *, batch: int | None = None, in_float: int = 0,
) -> None:  # fmt: skip
    """Writes the model with quantise and dequantise nodes, calibrated on `batches` of images.

    The first `in_float` layers stay in float32.
    """
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
            nodes_to_exclude=_first_nodes(ready, in_float),
        )


def _first_nodes(path: Path, layers: int) -> list[str]:
    """The names of the nodes that make up a model's first `layers` layers.

    Nodes without a name get one: the quantizer's preparation divides HardSwish into two such.
    """
    if not layers:
        return []
    model = onnx.load(path)
    nodes = model.graph.node
    for node in nodes:
        node.name = node.name or f"{node.output[0]}/{node.op_type}"
    onnx.save(model, path)
    end = [node.output[0] for node in nodes].index(f"value_{layers}")
    return [node.name for node in nodes[: end + 1]]


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
