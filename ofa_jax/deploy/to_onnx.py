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


def write(graph: Graph, resolution: int, path: Path) -> None:
    """Writes a model that `onnx.checker` accepts; a batch of any size.

    Its input is `[batch, 3, height, width]` float32, or uint8 `[batch, height, width, 3]` where
    the graph normalises.
    """
    nodes = Nodes()
    names, sizes = [INPUT], graph_lib.shapes(graph, resolution)
    for i, (operation, inputs) in enumerate(graph):
        names.append(OUTPUT if i == len(graph) - 1 else f"value_{i + 1}")
        _add(nodes, operation, [names[j] for j in inputs], names[-1], sizes[inputs[0]])
    square = [resolution, resolution]
    if graph_lib.normalizes(graph):
        images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", *square, 3])
    else:
        images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, *square])
    logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", sizes[-1][-1]])
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


def describe(path: Path, told: str, about: Mapping[str, str]) -> None:
    """Has a file say what it is: a sentence, and the fields that ONNX Runtime and viewers show."""
    model = onnx.load(path)
    model.doc_string = told
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
    """The nodes of a model and its constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: Any) -> str:
        """The name of a new constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
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
            limits = [self.constant(np.float32(0)), self.constant(np.float32(6))]
            return self.add("Clip", [x, *limits], output)
        return self.add({"relu": "Relu", "h_swish": "HardSwish"}[act], [x], output)


def _add(
    nodes: Nodes, operation: Any, inputs: list[str], output: str, shape: tuple[int, ...]
) -> None:
    """One layer's nodes; `shape` is that of its first input, `[1, height, width, channels]`."""
    match operation:
        case Normalize(mean, std):
            x = nodes.add("Cast", inputs, to=TensorProto.FLOAT)
            x = nodes.add("Transpose", [x], perm=[0, 3, 1, 2])
            factor, offset = graph_lib.affine(mean, std)
            x = nodes.add("Mul", [x, nodes.constant(factor[:, None, None])])
            nodes.add("Add", [x, nodes.constant(offset[:, None, None])], output)
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
            nodes.add("Flatten", [nodes.add("GlobalAveragePool", inputs)], output)
        case Dense(weight, bias, act):
            constants = [nodes.constant(weight), nodes.constant(bias)]
            nodes.activated(act, "Gemm", [*inputs, *constants], output)


def _add_squeeze_excite(nodes: Nodes, layer: SqueezeExcite, x: str, output: str) -> None:
    y = nodes.add("GlobalAveragePool", [x])
    for weight, bias, act in (
        (layer.reduce, layer.reduce_bias, "Relu"),
        (layer.expand, layer.expand_bias, ""),
    ):
        weights = [nodes.constant(weight.T[:, :, None, None]), nodes.constant(bias)]
        y = nodes.add("Conv", [y, *weights], kernel_shape=[1, 1])
        y = nodes.add(act, [y]) if act else y
    nodes.add("Mul", [x, nodes.add("HardSigmoid", [y], alpha=1 / 6, beta=0.5)], output)
