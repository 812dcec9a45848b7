"""ONNX: standard operators of opset 17, images `[batch, 3, height, width]` as its runtimes want.

Not by a converter of JAX programs: those end in dozens of operators where this has one, and forbid
the versions of other packages that we use. The whole network is eight kinds of layers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy.graph import (
    Add,
    Conv,
    Dense,
    Graph,
    Halve,
    MaxPool,
    Mean,
    Normalize,
    SqueezeExcite,
)
from ofa_jax.version import __version__

OPSET, IR_VERSION = 17, 9  # of 2022 and 2023: what runtimes on devices know
INPUT, OUTPUT = "images", "logits"


def write(
    graph: Graph, resolution: int, path: Path, *, batch: int | None = None, half: bool = False
) -> None:
    """Writes a model that `onnx.checker` accepts.

    Its input is `[batch, 3, height, width]` float32, or uint8 `[batch, height, width, 3]` where
    the graph normalises; its output is float32.

    Args:
      graph: from `graph.fold`.
      resolution: pixels of the images.
      path: the file's.
      batch: images a call; any number by default. With a fixed one the file holds only what phone
        delegates (NNAPI, Core ML) take.
      half: whether it computes in float16.
    """
    nodes = Nodes(half, batch)
    names, sizes = [INPUT], graph_lib.shapes(graph, resolution)
    if half and not graph_lib.normalizes(graph):
        names = [nodes.add("Cast", names, to=TensorProto.FLOAT16)]
    for i, (operation, inputs) in enumerate(graph):
        names.append(OUTPUT if i == len(graph) - 1 and not half else f"value_{i + 1}")
        _add(nodes, operation, [names[j] for j in inputs], names[-1], sizes[inputs[0]])
    if half:
        nodes.add("Cast", [names[-1]], OUTPUT, to=TensorProto.FLOAT)
    size, square = batch or "batch", [resolution, resolution]
    if graph_lib.normalizes(graph):
        images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [size, *square, 3])
    else:
        images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [size, 3, *square])
    logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [size, sizes[-1][-1]])
    made = helper.make_graph(nodes.nodes, "subnet", [images], [logits], nodes.constants)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ofa_jax",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def describe(path: Path, summary: str, about: Mapping[str, str]) -> None:
    """Has a file say what it is: a sentence, and the fields that ONNX Runtime and viewers show."""
    model = onnx.load(path)
    model.doc_string = summary
    helper.set_model_props(model, dict(about))
    onnx.save(model, path)


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """ONNX Runtime on this machine's CPU, with so many threads; 0 takes its own number."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load(path: Path, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """The file's network as a function of `[batch, height, width, 3]`."""
    running = session(path, threads)
    return lambda images: running.run([OUTPUT], {INPUT: as_input(images)})[0]


def as_input(images: np.ndarray) -> np.ndarray:
    """Images `[batch, height, width, 3]` as the file takes them: float32 channels first."""
    if images.dtype == np.uint8:
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


class Nodes:
    """The nodes of a model and its constants: in float16 where `half`.

    With a fixed `batch` they are what phone delegates know: HardSwish is sums, products and a Clip,
    Flatten is Reshape.
    """

    def __init__(self, half: bool = False, batch: int | None = None) -> None:
        self.half, self.batch = half, batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: Any) -> str:
        """The name of a new constant, in the precision of the model."""
        return self.exactly(np.asarray(array, np.float16 if self.half else np.float32))

    def exactly(self, array: np.ndarray) -> str:
        """The name of a new constant as it is."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """A new node; the name of what it gives."""
        output = output or f"inner_{len(self.nodes)}"
        # By what it gives: the same names at every writing.
        node = helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes)
        self.nodes.append(node)
        return output

    def activated(
        self, act: str | None, kind: str, inputs: list[str], output: str, **attributes: Any
    ) -> str:
        """A node and the activation after it."""
        if act is None:
            return self.add(kind, inputs, output, **attributes)
        x = self.add(kind, inputs, **attributes)
        if act == "relu6":
            return self.clipped(x, 6, output)
        if act == "h_swish" and self.batch:
            y = self.clipped(self.add("Add", [x, self.constant(3)]), 6)
            y = self.add("Mul", [y, self.constant(1 / 6)])
            return self.add("Mul", [x, y], output)
        return self.add({"relu": "Relu", "h_swish": "HardSwish"}[act], [x], output)

    def clipped(self, x: str, highest: float, output: str = "") -> str:
        """What lies between 0 and `highest`."""
        return self.add("Clip", [x, self.constant(0), self.constant(highest)], output)


def _add(
    nodes: Nodes, operation: Any, inputs: list[str], output: str, shape: tuple[int, ...]
) -> None:
    """One layer's nodes; `shape` is that of its first input, `[1, height, width, channels]`."""
    match operation:
        case Normalize(mean, std):
            x = nodes.add("Cast", inputs, to=TensorProto.FLOAT)
            x = nodes.add("Transpose", [x], perm=[0, 3, 1, 2])
            factor, offset = graph_lib.affine(mean, std)
            x = nodes.add("Mul", [x, nodes.exactly(factor[:, None, None])])
            offsets = nodes.exactly(offset[:, None, None])
            if nodes.half:  # pixels are normalised in float32
                nodes.add("Cast", [nodes.add("Add", [x, offsets])], output, to=TensorProto.FLOAT16)
            else:
                nodes.add("Add", [x, offsets], output)
        case Conv(weight, bias, stride, act, depthwise):
            size = weight.shape[0]
            weights = [nodes.constant(weight.transpose(3, 2, 0, 1)), nodes.constant(bias)]
            nodes.activated(
                act,
                "Conv",
                [*inputs, *weights],
                output,
                kernel_shape=[size, size],
                strides=[stride, stride],
                pads=[size // 2] * 4,
                group=weight.shape[-1] if depthwise else 1,
            )
        case SqueezeExcite():
            _add_squeeze_excite(nodes, operation, inputs[0], output)
        case Add(act):
            nodes.activated(act, "Add", inputs, output)
        case MaxPool():
            size = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
            nodes.add("MaxPool", inputs, output, **size)
        case Halve():
            pads = [0, 0, shape[1] % 2, shape[2] % 2]
            size = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": pads}
            nodes.add("AveragePool", inputs, output, count_include_pad=0, **size)
        case Mean():
            _flatten(nodes, nodes.add("GlobalAveragePool", inputs), shape[-1], output)
        case Dense(weight, bias, act):
            constants = [nodes.constant(weight), nodes.constant(bias)]
            nodes.activated(act, "Gemm", [*inputs, *constants], output)


def _flatten(nodes: Nodes, x: str, channels: int, output: str) -> None:
    if nodes.batch is None:
        nodes.add("Flatten", [x], output)
    else:
        nodes.add("Reshape", [x, nodes.exactly(np.asarray([nodes.batch, channels]))], output)


def _add_squeeze_excite(nodes: Nodes, layer: SqueezeExcite, x: str, output: str) -> None:
    def pointwise(weight: np.ndarray, bias: np.ndarray, y: str) -> str:
        weights = [nodes.constant(weight.T[:, :, None, None]), nodes.constant(bias)]
        return nodes.add("Conv", [y, *weights], kernel_shape=[1, 1])

    y = nodes.add("GlobalAveragePool", [x])
    y = nodes.add("Relu", [pointwise(layer.reduce, layer.reduce_bias, y)])
    # A hard sigmoid is a Clip of y / 6 + 1 / 2: delegates know no HardSigmoid.
    y = nodes.clipped(pointwise(layer.expand / 6, layer.expand_bias / 6 + 0.5, y), 1)
    nodes.add("Mul", [x, y], output)
