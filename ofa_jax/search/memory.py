"""The activations a subnet holds at once: what decides whether it fits a small device."""

import functools
from typing import Any

from ofa_jax.search.cost import integers, numbers
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.topology import Add, SqueezeExcite


def activation_bytes(space: SearchSpace, arch: Arch, resolution: Any, itemsize: int = 4) -> Any:
    """Peak bytes of activations for one image, layer by layer, weights not counted.

    A layer holds its input and its output, and what later layers read; batch norm, activation, SE
    and sums work in place. What has no pixels is too small to count.

    Args:
      space: the arch's space.
      arch: one arch, or a stacked batch.
      resolution: input height = width in pixels; an int or an int32 scalar.
      itemsize: bytes of a number, 4 for float32.

    Returns:
      One integer an arch, as `macs` does.
    """
    xp, arch = integers(arch, resolution)
    values = [space.layers[0].source, *(layer.output for layer in space.layers)]
    of, none = numbers(arch, xp), xp.zeros_like(arch.depth[..., 0])

    def size(value: int) -> Any:
        return values[value].side(resolution) ** 2 * of(values[value].channels)

    held = [
        none + of(space.layers[number - 1].kept) * sum(map(size, together))
        for number, together in _together(space)
    ]
    return functools.reduce(xp.maximum, held) * itemsize


@functools.cache
def _together(space: SearchSpace) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Each layer that makes a new array of pixels, and the values that are there as it does."""
    numbered = list(enumerate(space.layers, 1))
    last_read = {value: number for number, layer in numbered for value in layer.inputs}
    return tuple(
        (number, (*tuple(v for v in range(number) if last_read.get(v, 0) >= number), number))
        for number, layer in numbered
        if layer.output.stride and not isinstance(layer.operation, Add | SqueezeExcite)
    )
