"""TFLite: a file of the LiteRT runtime, written by its schema alone, without TensorFlow.

The runtime's images are `[batch, height, width, 3]` as ours are, so layers map one to one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

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

Op, Types = schema.BuiltinOperator, schema.TensorType
TYPES = {"float32": Types.FLOAT32, "int32": Types.INT32, "uint8": Types.UINT8}
FUSED = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}


def write(graph: Graph, resolution: int, path: Path, *, batch: int | None = None) -> None:
    """Writes `[batch, height, width, 3]` to logits, of a fixed `batch` or of any.

    A batch of any size is 1 until the runtime resizes its input.
    """
    model, values = build(graph, resolution, batch)
    path.write_bytes(model.bytes(values[0], values[-1]))


def build(graph: Graph, resolution: int, batch: int | None = None) -> "tuple[Model, list[int]]":
    """The model, and the numbers of its tensors: the images, then what each layer gives."""
    model = Model(batch)
    sizes = graph_lib.shapes(graph, resolution)
    dtype = "uint8" if graph_lib.normalizes(graph) else "float32"
    values = [model.tensor(sizes[0], dtype, name="images")]
    for (operation, inputs), shape in zip(graph, sizes[1:], strict=True):
        values.append(_add(model, operation, [values[i] for i in inputs], shape))
    return model, values


def load(path: Path, threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """The file's network as a function of `[batch, height, width, 3]`."""
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    (images,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    batch = 0

    def call(array: np.ndarray) -> np.ndarray:
        nonlocal batch
        if len(array) != batch:
            interpreter.resize_tensor_input(images["index"], array.shape)
            interpreter.allocate_tensors()
            batch = len(array)
        interpreter.set_tensor(images["index"], array)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    return call


class Model:
    """A model that grows: tensors are numbers, those with data are constants.

    `shapes` are those of one image; `batch` is how many a call takes, where that is fixed.
    """

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "subnet"
        self.buffers = [schema.BufferT()]  # number 0, of all tensors without data
        self.codes = list[int]()
        self.shapes: list[tuple[int, ...]] = []

    def tensor(self, shape: Sequence[int], dtype: str = "float32", name: str = "") -> int:
        """A new value; its first axis is the batch."""
        tensor = schema.TensorT()
        tensor.name = name or f"value_{len(self.graph.tensors)}"
        tensor.shape, tensor.type = _int32([self.batch or 1, *shape[1:]]), TYPES[dtype]
        tensor.shapeSignature = None if self.batch else _int32([-1, *shape[1:]])
        self.graph.tensors.append(tensor)
        self.shapes.append(tuple(shape))
        return len(self.graph.tensors) - 1

    def constant(self, array: Any) -> int:
        """A new value with data."""
        array = np.ascontiguousarray(array)
        number = self.tensor(array.shape, str(array.dtype))
        tensor, buffer = self.graph.tensors[number], schema.BufferT()
        tensor.shape = _int32(array.shape)
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        tensor.buffer, tensor.shapeSignature = len(self.buffers), None
        self.buffers.append(buffer)
        return number

    def add(
        self, code: int, inputs: Sequence[int], shape: Sequence[int], options: str = "",
        act: str | None = None, **values: Any,
    ) -> int:  # fmt: skip
        """An operator with `options` of that name, and the activation after it."""
        operator = schema.OperatorT()
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            if hasattr(operator.builtinOptions, "fusedActivationFunction"):
                values["fusedActivationFunction"] = FUSED.get(act, FUSED[None])
            for key, value in values.items():
                setattr(operator.builtinOptions, key, value)
        output = self.tensor(shape)
        operator.opcodeIndex = self._index(code)
        operator.inputs, operator.outputs = _int32(inputs), _int32([output])
        self.graph.operators.append(operator)
        return self.add(Op.HARD_SWISH, [output], shape) if act == "h_swish" else output

    def _index(self, code: int) -> int:
        if code not in self.codes:
            self.codes.append(code)
        return self.codes.index(code)

    def bytes(self, images: int, logits: int) -> bytes:
        """The file's content."""
        self.graph.inputs, self.graph.outputs = _int32([images]), _int32([logits])
        self.graph.tensors[logits].name = "logits"
        model = schema.ModelT()
        model.version, model.description = 3, "ofa_jax subnet"
        model.subgraphs, model.buffers, model.operatorCodes = [self.graph], self.buffers, []
        model.signatureDefs = [_signature(images, logits)]
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.version = code, 1
            entry.deprecatedBuiltinCode = min(code, 127)
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _signature(images: int, logits: int) -> schema.SignatureDefT:
    """The names by which runtimes and converters find inputs and outputs."""
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [], []
    for maps, name, index in (
        (signature.inputs, "images", images),
        (signature.outputs, "logits", logits),
    ):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    return signature


def _add(model: Model, operation: Any, inputs: list[int], shape: tuple[int, ...]) -> int:
    """One layer's operators; `shape` is what it gives, `[1, height, width, channels]`."""
    match operation:
        case Normalize(mean, std):
            factor, offset = (model.constant(array) for array in graph_lib.affine(mean, std))
            casts = {"inDataType": Types.UINT8, "outDataType": Types.FLOAT32}
            x = model.add(Op.CAST, inputs, shape, "CastOptions", **casts)
            x = model.add(Op.MUL, [x, factor], shape, "MulOptions")
            return model.add(Op.ADD, [x, offset], shape, "AddOptions")
        case Conv():
            return _add_conv(model, operation, inputs[0], shape)
        case SqueezeExcite():
            return _add_squeeze_excite(model, operation, inputs[0], shape)
        case Add(act):
            return model.add(Op.ADD, inputs, shape, "AddOptions", act)
        case MaxPool():
            x = _pad(model, inputs[0], 1, 1)  # zeros are no maximum: a ReLU lies before
            valid = {"padding": schema.Padding.VALID, **_window(3, 2)}
            return model.add(Op.MAX_POOL_2D, [x], shape, "Pool2DOptions", **valid)
        case Halve():
            same = {"padding": schema.Padding.SAME, **_window(2, 2)}  # counts only what is there
            return model.add(Op.AVERAGE_POOL_2D, inputs, shape, "Pool2DOptions", **same)
        case Mean():
            return _mean(model, inputs[0], shape, keep=False)
        case Dense(weight, bias, act):
            arrays = [model.constant(weight.T), model.constant(bias)]
            options = "FullyConnectedOptions"
            return model.add(Op.FULLY_CONNECTED, [*inputs, *arrays], shape, options, act)
    raise TypeError(f"no operator for {operation}")


def _int32(values: Any) -> np.ndarray:
    return np.asarray(values, np.int32)


def _window(size: int, stride: int) -> dict[str, int]:
    return {"filterWidth": size, "filterHeight": size, "strideW": stride, "strideH": stride}


def _mean(model: Model, x: int, shape: tuple[int, ...], keep: bool) -> int:
    axes = model.constant(_int32([1, 2]))
    return model.add(Op.MEAN, [x, axes], shape, "ReducerOptions", keepDims=keep)


def _pad(model: Model, x: int, rows: int, columns: int) -> int:
    batch, height, width, channels = model.shapes[x]
    margins = model.constant(_int32([(0, 0), (rows, rows), (columns, columns), (0, 0)]))
    shape = (batch, height + 2 * rows, width + 2 * columns, channels)
    return model.add(Op.PAD, [x, margins], shape, "PadOptions")


def _add_conv(model: Model, layer: Conv, x: int, shape: tuple[int, ...]) -> int:
    if layer.depthwise:
        return _add_depthwise(model, layer, x, shape)
    arrays = [model.constant(layer.weight.transpose(3, 0, 1, 2)), model.constant(layer.bias)]
    margin = layer.weight.shape[0] // 2
    x, values = _padded(model, x, layer.stride, margin, margin)
    return model.add(Op.CONV_2D, [x, *arrays], shape, "Conv2DOptions", layer.act, **values)


# XNNPACK has depthwise kernels of 25, 9 and fewer taps, and what is larger is 9 to 23 times slower
# than it need be. So a 7x7 kernel becomes three dilated ones, of 21, 20 and 8 taps.
ALL, EVEN, ODD, INNER, OUTER = range(7), range(0, 7, 2), range(1, 6, 2), range(1, 6), range(0, 7, 6)
PARTS = {7: ((ALL, ODD), (INNER, EVEN), (OUTER, EVEN))}


def _add_depthwise(model: Model, layer: Conv, x: int, shape: tuple[int, ...]) -> int:
    size = layer.weight.shape[0]
    total, bias = None, layer.bias
    split = PARTS.get(size, ((range(size), range(size)),))
    for rows, columns in split:
        weight = layer.weight[np.ix_(rows, columns)].transpose(2, 0, 1, 3)
        arrays = [model.constant(weight), model.constant(bias)]
        margins = size // 2 - rows.start, size // 2 - columns.start
        padded, values = _padded(model, x, layer.stride, *margins)
        values |= {"dilationHFactor": rows.step, "dilationWFactor": columns.step}
        act = layer.act if len(split) == 1 else None
        part = model.add(
            Op.DEPTHWISE_CONV_2D, [padded, *arrays], shape, "DepthwiseConv2DOptions", act,
            depthMultiplier=1, **values,
        )  # fmt: skip
        if total is not None:
            act = layer.act if (rows, columns) == split[-1] else None
            part = model.add(Op.ADD, [total, part], shape, "AddOptions", act)
        total, bias = part, np.zeros_like(bias)
    assert total is not None
    return total


def _padded(
    model: Model, x: int, stride: int, rows: int, columns: int
) -> tuple[int, dict[str, int]]:
    """What a convolution with such margins reads, and its options."""
    values = {"strideW": stride, "strideH": stride, "dilationWFactor": 1, "dilationHFactor": 1}
    if stride == 1 or not rows:
        return x, values | {"padding": schema.Padding.SAME}
    # The runtime's own padding of an even image lies one pixel off: all of it at the end.
    return _pad(model, x, rows, columns), values | {"padding": schema.Padding.VALID}


def _add_squeeze_excite(model: Model, layer: SqueezeExcite, x: int, shape: tuple[int, ...]) -> int:
    def pointwise(weight: np.ndarray, bias: np.ndarray, act: str | None, y: int) -> int:
        conv = Conv(weight[None, None], bias, 1, act)
        return _add_conv(model, conv, y, (1, 1, 1, weight.shape[-1]))

    pooled = (1, 1, 1, shape[-1])
    y = _mean(model, x, pooled, keep=True)
    y = pointwise(layer.reduce, layer.reduce_bias, "relu", y)
    # A hard sigmoid: min(max(y + 3, 0), 6) / 6.
    y = pointwise(layer.expand, layer.expand_bias + 3, "relu6", y)
    sixth = model.constant(np.asarray([1 / 6], np.float32))
    y = model.add(Op.MUL, [y, sixth], pooled, "MulOptions")
    return model.add(Op.MUL, [x, y], shape, "MulOptions")
