"""A network described once: symbolic layers, over which everything else is a short fold.

A family lists the layers of its largest network (`SearchSpace.layers`). Whatever an arch chooses, a
number of channels, a kernel size, whether a layer exists at all, is a `Size`: its values and the
genes that pick one of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Gene = tuple[str, int]  # a field of `Arch`, and the index in it
Nested = int | tuple["Nested", ...]


class Size(NamedTuple):
    """A number that genes choose: `values` is nested once for each gene, without one a number."""

    values: Nested
    genes: tuple[Gene, ...] = ()

    def of(self, arch: object, xp: Any = np) -> Any:
        """The number of an `Arch`, or of each of a batch; `xp` is the array module to use."""
        if not self.genes:
            return self.values
        picked = tuple(getattr(arch, field)[..., index] for field, index in self.genes)
        return xp.asarray(self.values)[picked]

    @property
    def choices(self) -> tuple[int, ...]:
        """What the last gene may choose, where all others choose their largest."""
        values = self.values
        while isinstance(values, tuple) and isinstance(values[0], tuple):
            values = values[-1]
        return values if isinstance(values, tuple) else (values,)  # type: ignore[return-value]

    @property
    def most(self) -> int:
        """The largest of its values."""
        return int(np.max(self.values))


ALWAYS, NEVER = Size(1), Size(0)


class Value(NamedTuple):
    """What a layer gives: its channels, and the stride of its pixels in the image's, 0 for none."""

    channels: Size
    stride: int

    def side(self, resolution: Any) -> Any:
        """Height = width for an image of `resolution` pixels; padding is k // 2 throughout."""
        return (resolution - 1) // self.stride + 1 if self.stride else 1


@dataclasses.dataclass(frozen=True)
class Conv:
    """Convolution, batch norm, `act`; variables "conv" and "bn" are at `path`."""

    path: str
    kernel: Size
    stride: int = 1
    act: str | None = None
    depthwise: bool = False


@dataclasses.dataclass(frozen=True)
class SqueezeExcite:
    """Channel attention through `squeeze` units; "reduce" and "expand" are at `path`."""

    path: str
    squeeze: Size


@dataclasses.dataclass(frozen=True)
class Dense:
    """A linear layer, with the bias if there is one, then `act`."""

    path: str
    act: str | None = None
    bias: bool = True


@dataclasses.dataclass(frozen=True)
class Add:
    """The sum of two values."""

    act: str | None = None


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """3x3 maximum, stride 2, padding 1."""


@dataclasses.dataclass(frozen=True)
class Halve:
    """2x2 mean, stride 2; an odd last row or column is the mean of what there is of it."""


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over all pixels: `[batch, channels]`."""


Operation = Conv | SqueezeExcite | Dense | Add | MaxPool | Halve | Mean


@dataclasses.dataclass(frozen=True)
class Part:
    """Layers that are timed together: a block, or what stands before, between or after them.

    Attributes:
      name: in messages and drawings.
      key: what latency tables call it, with `{input}`, `{output}`, `{mid}` (channels after the
        first layer), `{kernel}` (the largest) and `{residual}` (1 with a sum, else 0) filled in.
      block: its index in `SearchSpace.blocks`, None outside them.
      stage: that block's.
    """

    name: str
    key: str
    block: int | None = None
    stage: int = -1


class Layer(NamedTuple):
    """An operation on earlier values: 0 is the images, n what the n-th layer gives.

    Attributes:
      operation: what it does.
      inputs: the values it reads; a layer that is not kept gives the first of them.
      source: the first of them.
      output: what it gives.
      part: what it belongs to.
      kept: 1 where an arch has the layer, else 0.
      reference: the module's name in once-for-all, of the largest network; "" where it has none.
    """

    operation: Operation
    inputs: tuple[int, ...]
    source: Value
    output: Value
    part: Part
    kept: Size = ALWAYS
    reference: str = ""

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of its weights."""
        own: tuple[Size, ...] = ()
        if isinstance(self.operation, Conv):
            own = (self.operation.kernel,)
        elif isinstance(self.operation, SqueezeExcite):
            own = (self.operation.squeeze,)
        return (self.source.channels, *own, self.output.channels)


Layers = tuple[Layer, ...]


@dataclasses.dataclass
class Builder:
    """A description that grows: each method adds a layer and gives the number of its value."""

    layers: list[Layer] = dataclasses.field(default_factory=list)
    values: list[Value] = dataclasses.field(default_factory=lambda: [Value(Size(3), 1)])
    part: Part = Part("", "")
    kept: Size = ALWAYS

    def begin(
        self, name: str, key: str = "", block: int | None = None, stage: int = -1,
        kept: Size = ALWAYS,
    ) -> None:  # fmt: skip
        """All layers from here on are of a new part; without a `key`, its name becomes one."""
        key = key or f"{name}-input:{{input}}-output:{{output}}-mid:{{mid}}-kernel:{{kernel}}"
        self.part, self.kept = Part(name, key, block, stage), kept

    def add(
        self, operation: Operation, *inputs: int, channels: Size | None = None, stride: int = 1,
        kept: Size | None = None, reference: str = "",
    ) -> int:  # fmt: skip
        """A layer; `channels` default to its input's, a `stride` of 0 pools all."""
        source = self.values[inputs[0]]
        output = Value(channels or source.channels, source.stride * stride)
        kept = self.kept if kept is None else kept
        self.layers.append(Layer(operation, inputs, source, output, self.part, kept, reference))
        self.values.append(output)
        return len(self.layers)

    def conv(
        self, x: int, path: str, channels: Size | int, kernel: Size | int = 1, stride: int = 1,
        act: str | None = None, kept: Size | None = None, reference: str = "",
    ) -> int:  # fmt: skip
        """A dense convolution."""
        operation = Conv(path, _size(kernel), stride, act)
        return self.add(operation, x, channels=_size(channels), stride=stride, kept=kept,
                        reference=reference)  # fmt: skip

    def depthwise(
        self, x: int, path: str, kernel: Size | int, stride: int = 1, act: str | None = None,
        reference: str = "",
    ) -> int:  # fmt: skip
        """A depthwise convolution."""
        operation = Conv(path, _size(kernel), stride, act, depthwise=True)
        return self.add(operation, x, stride=stride, reference=reference)

    def dense(
        self, x: int, path: str, channels: int, act: str | None = None, bias: bool = True,
        reference: str = "",
    ) -> int:  # fmt: skip
        """A linear layer."""
        return self.add(Dense(path, act, bias), x, channels=Size(channels), reference=reference)


def _size(value: Size | int) -> Size:
    return value if isinstance(value, Size) else Size(value)


def narrow(layers: Layers, choose: Callable[[Size], int]) -> Layers:
    """The layers with one choice left of each size, those that are not kept left out."""
    narrowed: list[Layer] = []
    places = {layers[0].inputs[0]: 0}  # of each old value

    def fixed(value: Value) -> Value:
        return value._replace(channels=Size(choose(value.channels)))

    first = layers[0].inputs[0] + 1
    for number, layer in enumerate(layers, first):
        if not choose(layer.kept):
            places[number] = places[layer.inputs[0]]
            continue
        operation = layer.operation
        if isinstance(operation, Conv):
            operation = dataclasses.replace(operation, kernel=Size(choose(operation.kernel)))
        elif isinstance(operation, SqueezeExcite):
            operation = dataclasses.replace(operation, squeeze=Size(choose(operation.squeeze)))
        inputs = tuple(places[i] for i in layer.inputs)
        narrowed.append(
            layer._replace(operation=operation, inputs=inputs, source=fixed(layer.source),
                           output=fixed(layer.output), kept=ALWAYS)
        )  # fmt: skip
        places[number] = len(narrowed)
    return tuple(narrowed)


def of_arch(layers: Layers, arch: object) -> Layers:
    """The layers of one concrete `Arch`."""
    return narrow(layers, lambda size: int(size.of(arch)))
