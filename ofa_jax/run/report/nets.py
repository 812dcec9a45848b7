"""A picture of a subnet: a row of blocks for each stage."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ofa_jax.run.report.template import Markup, filled
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.topology import Conv, Layer

TIMES = "\u00d7"
LABEL, GAP, ROW, BLOCK = 98, 6, 54, 38  # across, between blocks, down, a block's height


class Box(NamedTuple):
    """A block in the picture: `share` is its width of the widest, `tone` its kernel's shade."""

    lines: tuple[str, ...]
    tooltip: str
    share: float
    tone: float
    kept: bool


class Line(NamedTuple):
    """One stage: its name, its output channels and its blocks."""

    name: str
    channels: int
    blocks: list[Box]


NET = """\
<svg style="min-width:{{ least }}px" viewBox="0 0 {{ width }} {{ height }}" role="img"\
 aria-label="{{ label }}">\
{% for line in lines %}{% set y = loop.index0 * row %}\
<text class="strong" x="0" y="{{ y + 22 }}">{{ line.name }}</text>\
<text x="0" y="{{ y + 38 }}">{{ line.channels }} channels</text>\
{% for block, x, width in placed(line) %}{{ draw(block, x, y + 8, width) }}{% endfor %}\
{% endfor %}</svg>"""
BLOCK_OF = """\
<g><title>{{ block.tooltip }}</title><rect\
{% if block.kept %} class="block" style="--v:{{ tone }}"{% else %} class="skipped"{% endif %}\
 x="{{ x }}" y="{{ y }}" width="{{ width }}" height="{{ height }}" rx="4"/>\
{% for words, style in lines %}\
<text class="{{ style }}" x="{{ middle }}" y="{{ first + 15 * loop.index0 }}"\
 text-anchor="middle">{{ words }}</text>\
{% endfor %}</g>"""


def draw_net(space: SearchSpace, arch: dict[str, Any], name: str) -> Markup:
    """An arch as SVG: a block's width is its expand ratio, its shade and number its kernel.

    Args:
      space: the arch's.
      arch: as `space.arch_from_dict` takes it.
      name: of the subnet, to be read out.

    Raises:
      ValueError: not an arch of the space.
    """
    lines = list(_lines(space, arch))
    most = max(len(line.blocks) for line in lines)
    widest = 74 if most <= 4 else 60
    width = LABEL + most * (widest + GAP)
    kept = ", ".join(f"{line.name} {sum(b.kept for b in line.blocks)}" for line in lines)
    return filled(
        NET,
        lines=lines,
        width=width,
        height=len(lines) * ROW,
        least=round(0.8 * width),  # pixels: smaller, nobody could read it
        label=f"{name}: blocks kept of each stage: {kept}",
        row=ROW,
        placed=functools.partial(_placed, widest),
        draw=_block,
    )


def _placed(widest: float, line: Line) -> Iterator[tuple[Box, float, float]]:
    """A line's blocks, each with where it begins and its width."""
    x = float(LABEL)
    for block in line.blocks:
        width = round(block.share * widest, 1)
        yield block, round(x, 1), width
        x += width + GAP


def _block(block: Box, x: float, y: float, width: float) -> Markup:
    styles = ("strong", "ink") if block.kept else ("",)
    return filled(
        BLOCK_OF,
        block=block,
        lines=list(zip(block.lines, styles, strict=True)),
        tone=f"{block.tone:.2f}",
        x=x,
        y=y,
        width=width,
        height=BLOCK,
        middle=round(x + width / 2, 1),
        first=y + (17 if len(block.lines) > 1 else 24),
    )


def _lines(space: SearchSpace, arch: dict[str, Any]) -> Iterator[Line]:
    read = jax.tree.map(np.asarray, space.arch_from_dict(arch))
    for name, layers in itertools.groupby(space.layers, _line):
        own = list(layers)
        blocks = [list(group) for _, group in itertools.groupby(own, lambda layer: layer.part)]
        chosen = [layer for layer in own if _draws_itself(layer)]
        if own[0].part.block is not None:
            boxes = [_box(space, block, read) for block in blocks]
        elif chosen:
            boxes = _convolutions(name, chosen, read)
        else:  # the same in every arch
            continue
        yield Line(name, int(own[-1].output.channels.of(read)), boxes)


def _line(layer: Layer) -> str:
    """The line that a layer belongs to."""
    part = layer.part
    return part.name if part.block is None else f"stage {part.stage + 1}"


def _draws_itself(layer: Layer) -> bool:
    return isinstance(layer.operation, Conv) and bool(layer.output.channels.genes)


def _box(space: SearchSpace, block: list[Layer], arch: Arch) -> Box:
    """A block by its genes."""
    part, kept = block[0].part, bool(block[0].kept.of(arch))
    name = part.name.replace("_", " ")
    if not kept:
        return Box(("skipped",), f"{name}: skipped", 1.0, 0.0, False)
    assert part.block is not None
    kernel, expand = int(arch.kernel[part.block]), space.expands[int(arch.expand[part.block])]
    size, last = space.kernels[kernel], len(space.kernels) - 1
    tooltip = f"{name}: kernel {size}{TIMES}{size}, expand {expand:g}, "
    tooltip += f"{block[0].output.channels.of(arch)} channels inside"
    share = max(expand / space.expands[-1], 0.5)  # narrower, its words would not fit
    tone = kernel / last if last else 0.4
    return Box((f"{size}{TIMES}{size}", f"{expand:g}"), tooltip, share, tone, True)


def _convolutions(name: str, layers: list[Layer], arch: Arch) -> list[Box]:
    """Convolutions outside blocks whose channels an arch chooses, one by one."""
    boxes = []
    for number, layer in enumerate(layers):
        operation = layer.operation
        assert isinstance(operation, Conv)
        ends = {0: "first convolution", len(layers) - 1: "last convolution"}
        kind = "residual" if layer.kept.genes else ends.get(number, "convolution")
        if layer.kept.of(arch):
            size, count = operation.kernel.of(arch), layer.output.channels.of(arch)
            words = (f"{size}{TIMES}{size}", f"{count} ch")
            boxes.append(Box(words, f"{name}, {kind}: {count} channels", 1.0, 0.4, True))
        else:
            boxes.append(Box(("skipped",), f"{name}, {kind}: skipped", 1.0, 0.0, False))
    return boxes
