"""A subnet drawn: a row of blocks for each stage."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from ofa_jax.run.report.template import Markup, filled
from ofa_jax.space import SearchSpace
from ofa_jax.spaces import ResNetSpace

TIMES = "\u00d7"
LABEL, GAP, ROW, BLOCK = 98, 6, 54, 38  # across, between blocks, down, a block's height


class Drawn(NamedTuple):
    """One block as it is drawn. `share` is its width's, of the widest; `tone` its kernel's."""

    lines: tuple[str, ...]
    told: str
    share: float
    tone: float
    kept: bool


class Line(NamedTuple):
    """One stage: its name, its output channels and its blocks."""

    name: str
    channels: int
    blocks: list[Drawn]


NET = """\
<svg style="min-width:{{ least }}px" viewBox="0 0 {{ width }} {{ height }}" role="img"\
 aria-label="{{ label }}">\
{% for line in lines %}{% set y = loop.index0 * row %}\
<text class="strong" x="0" y="{{ y + 22 }}">{{ line.name }}</text>\
<text x="0" y="{{ y + 38 }}">{{ line.channels }} channels</text>\
{% for block, x, width in placed(line) %}{{ drawn(block, x, y + 8, width) }}{% endfor %}\
{% endfor %}</svg>"""
BLOCK_OF = """\
<g><title>{{ block.told }}</title><rect\
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
        drawn=_block,
    )


def _placed(widest: float, line: Line) -> Iterator[tuple[Drawn, float, float]]:
    """A line's blocks, each with where it begins and its width."""
    x = float(LABEL)
    for block in line.blocks:
        width = round(block.share * widest, 1)
        yield block, round(x, 1), width
        x += width + GAP


def _block(block: Drawn, x: float, y: float, width: float) -> Markup:
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
    read = space.arch_from_dict(arch)
    indices, active = space.indices(read), space.active(read.depth)
    width = indices.get("width", [])
    if isinstance(space, ResNetSpace):
        yield _stem(space, width, bool(space.keeps_stem(indices["depth"])))
    for stage, spec in enumerate(space.stages):
        own = [i for i, block in enumerate(space.blocks) if block.stage == stage]
        blocks = [_drawn(space, i, indices, bool(active[i])) for i in own]
        channels = space.blocks[own[0]].widths[width[stage + 2]] if width else spec.width
        yield Line(f"stage {stage + 1}", channels, blocks)


def _drawn(space: SearchSpace, i: int, indices: dict[str, list[int]], kept: bool) -> Drawn:
    block = space.blocks[i]
    name = block.name.replace("_", " ")
    if not kept:
        return Drawn(("skipped",), f"{name}: skipped", 1.0, 0.0, False)
    kernel, expand = indices["kernel"][i], space.expands[indices["expand"][i]]
    size, last = space.kernels[kernel], len(space.kernels) - 1
    mids = block.mids[indices["width"][block.stage + 2]] if "width" in indices else block.mids
    told = f"{name}: kernel {size}{TIMES}{size}, expand {expand:g}, "
    told += f"{mids[indices['expand'][i]]} channels inside"
    share = max(expand / space.expands[-1], 0.5)  # narrower, its words would not fit
    tone = kernel / last if last else 0.4
    return Drawn((f"{size}{TIMES}{size}", f"{expand:g}"), told, share, tone, True)


def _stem(space: ResNetSpace, width: list[int], kept: bool) -> Line:
    stem = space.stem_block
    mid, out = stem.mids[width[0]], stem.widths[width[1]]
    parts = (("first convolution", mid, True), ("residual", mid, kept),
             ("last convolution", out, True))  # fmt: skip
    blocks = [
        Drawn((f"3{TIMES}3", f"{count} ch"), f"stem, {part}: {count} channels", 1.0, 0.4, True)
        if there
        else Drawn(("skipped",), f"stem, {part}: skipped", 1.0, 0.0, False)
        for part, count, there in parts
    ]
    return Line("stem", out, blocks)
