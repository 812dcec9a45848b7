"""Curves and scatter plots as SVG.

Numbers are put into the pictures as they are; text goes through a template, which escapes it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ofa_jax.run.report.template import Markup, filled, joined

Points = Sequence[tuple[float, float]]
Phases = Sequence[tuple[str, float, float]]  # name, first and last step
UPRIGHT = 78.0  # above a plot whose names stand upright
Number = Callable[[float], str]


class Axes(NamedTuple):
    """A plot's place in its picture, and the figures at its edges."""

    width: float
    height: float
    left: float
    top: float
    bottom: float
    low: tuple[float, float]
    high: tuple[float, float]

    def x(self, value: float) -> float:
        """Where a value lies across."""
        share = (value - self.low[0]) / (self.high[0] - self.low[0])
        return round(self.left + share * (self.width - self.left - 14), 1)

    def y(self, value: float) -> float:
        """Where a value lies up and down."""
        share = (value - self.low[1]) / (self.high[1] - self.low[1])
        return round(self.height - self.bottom - share * (self.height - self.bottom - self.top), 1)


def axes(points: Points, width: float, height: float, left: float, top: float) -> Axes:
    """Axes that hold all points, with a little room above and below."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    room = 0.06 * (max(ys) - min(ys)) or 0.01
    wide = (max(xs) - min(xs)) or 1.0
    low, high = (min(xs), min(ys) - room), (min(xs) + wide, max(ys) + room)
    return Axes(width, height, left, top, 46, low, high)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two others, at most so many."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10, 20) if size * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)][:most]


FRAME = """\
{% for value in upwards %}{% set y = at.y(value) %}\
<line class="line" x1="{{ left }}" x2="{{ right }}" y1="{{ y }}" y2="{{ y }}"/>\
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ number(value) }}</text>\
{% endfor %}\
{% for value in sideways %}\
<text x="{{ at.x(value) }}" y="{{ ground + 17 }}" text-anchor="middle">{{ cost(value) }}</text>\
{% endfor %}\
<text x="{{ middle }}" y="{{ at.height - 6 }}" text-anchor="middle">{{ across }}</text>"""


def frame(at: Axes, across: str, number: Number, cost: Number) -> Markup:
    """Lines and figures of both axes, and the name of the lower one."""
    left, right = at.x(at.low[0]), at.x(at.high[0])
    return filled(
        FRAME,
        at=at,
        left=left,
        right=right,
        middle=(left + right) / 2,
        ground=at.height - at.bottom,
        upwards=ticks(at.low[1], at.high[1]),
        sideways=ticks(at.low[0], at.high[0], 5),
        across=across,
        number=number,
        cost=cost,
    )


def room(phases: Phases, width: float) -> float:
    """Above a plot so wide, for the names of its phases; less where all can lie."""
    whole = sum(last - first for _, first, last in phases) or 1
    lying = all(
        10 * len(_short(name)) < (last - first) / whole * width for name, first, last in phases
    )
    return 26.0 if lying else UPRIGHT


BANDS = """\
{% for name, start, end in spans %}\
{% if loop.index is odd %}<rect class="band" x="{{ start }}" y="{{ at.top }}"\
 width="{{ (end - start) | round(1) }}" height="{{ height }}"/>{% endif %}\
{% set middle = ((start + end) / 2) | round(1) %}\
<text {% if lying %}x="{{ middle }}" y="{{ at.top - 7 }}" text-anchor="middle"\
{% else %}transform="translate({{ (middle + 4) | round(1) }} {{ at.top - 5 }}) rotate(-90)"\
{% endif %}>{{ name }}</text>\
{% endfor %}"""


def bands(at: Axes, phases: Phases) -> Markup:
    """Every other phase shaded, each with its name above: upright where the band is narrow."""
    spans = [(_short(name), at.x(first), at.x(last)) for name, first, last in phases]
    lying, height = at.top < UPRIGHT, at.height - at.bottom - at.top
    return filled(BANDS, at=at, spans=spans, lying=lying, height=height)


def _short(name: str) -> str:
    return name if len(name) <= 9 else f"{name[:8]}…"


HOVERS = """\
{% for start, end, text in boxes %}\
<rect class="hover" x="{{ start }}" y="{{ at.top }}" width="{{ (end - start) | round(1) }}"\
 height="{{ height }}"><title>{{ text }}</title></rect>\
{% endfor %}"""


def hovers(at: Axes, phases: Phases, tooltips: Sequence[str]) -> Markup:
    """Invisible boxes over the phases, with tooltips."""
    spans = zip(phases, tooltips, strict=True)
    boxes = [(at.x(first), at.x(last), text) for (_, first, last), text in spans]
    return filled(HOVERS, at=at, boxes=boxes, height=at.height - at.bottom - at.top)


def curve(at: Axes, runs: Iterable[Points], style: str = "") -> Markup:
    """One line through each run of points."""
    path = "".join(
        "M" + "L".join(f"{at.x(x)} {at.y(y)}" for x, y in points) for points in runs if points
    )
    return filled('<path class="curve {{ style }}" d="{{ path }}"/>', style=style, path=path)


def stairs(at: Axes, points: Points, style: str) -> Markup:
    """A line that keeps each value until the next one."""
    corners = [points[0]]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((at.high[0], corners[-1][1]))
    return curve(at, [corners], style)


def dots(at: Axes, points: Points, tooltips: Sequence[str]) -> Markup:
    """Filled dots with tooltips."""
    return _marks(at, points, tooltips, Markup('circle class="dot" r="3"'))


def rings(at: Axes, points: Points, tooltips: Sequence[str]) -> Markup:
    """Open rings with tooltips."""
    return _marks(at, points, tooltips, Markup('circle class="ring" r="4.5"'))


STAR = "M0 -10L2.9 -3.1L10 -3.1L4.3 1.6L6.4 9L0 4.6L-6.4 9L-4.3 1.6L-10 -3.1L-2.9 -3.1Z"


def stars(at: Axes, points: Points, tooltips: Sequence[str]) -> Markup:
    """Stars with tooltips."""
    return _marks(at, points, tooltips, Markup(f'path class="star" d="{STAR}"'))


MARKS = """\
{% for x, y, text in marks %}\
<{{ shape }} transform="translate({{ x }} {{ y }})"><title>{{ text }}</title></{{ tag }}>\
{% endfor %}"""


def _marks(at: Axes, points: Points, tooltips: Sequence[str], shape: Markup) -> Markup:
    placed = zip(points, tooltips, strict=True)
    marks = [(at.x(x), at.y(y), text) for (x, y), text in placed]
    return filled(MARKS, marks=marks, shape=shape, tag=shape.split()[0])


SVG = """\
<svg class="{{ style }}" viewBox="0 0 {{ at.width }} {{ at.height }}" role="img"\
 aria-label="{{ label }}">{{ inner }}</svg>"""


def svg(at: Axes, parts: Iterable[Markup], label: str, style: str = "chart") -> Markup:
    """The picture of its parts; `label` is what is read out in its place."""
    return filled(SVG, at=at, inner=joined(parts), label=label, style=style)
