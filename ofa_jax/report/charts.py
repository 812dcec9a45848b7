"""Curves and scatter plots as SVG."""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

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


def frame(at: Axes, across: str, number: Number, cost: Number) -> str:
    """Lines and figures of both axes, and the name of the lower one."""
    left, right, ground = at.x(at.low[0]), at.x(at.high[0]), at.height - at.bottom
    parts = []
    for value in ticks(at.low[1], at.high[1]):
        y = at.y(value)
        parts.append(f'<line class="line" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{number(value)}</text>')
    for value in ticks(at.low[0], at.high[0], 5):
        x = at.x(value)
        parts.append(f'<text x="{x}" y="{ground + 17}" text-anchor="middle">{cost(value)}</text>')
    middle = (left + right) / 2
    parts.append(
        f'<text x="{middle}" y="{at.height - 6}" text-anchor="middle">{escape(across)}</text>'
    )
    return "".join(parts)


def room(phases: Phases, width: float) -> float:
    """Above a plot so wide, for the names of its phases; less where all can lie."""
    whole = sum(last - first for _, first, last in phases) or 1
    lying = all(
        10 * len(_short(name)) < (last - first) / whole * width for name, first, last in phases
    )
    return 26.0 if lying else UPRIGHT


def bands(at: Axes, phases: Phases) -> str:
    """Every other phase shaded, each with its name above: upright where the band is narrow."""
    spans = [(name, at.x(first), at.x(last)) for name, first, last in phases]
    lying = at.top < UPRIGHT
    parts = []
    for i, (name, start, end) in enumerate(spans):
        if i % 2 == 0:
            parts.append(
                f'<rect class="band" x="{start}" y="{at.top}" width="{end - start:.1f}"'
                f' height="{at.height - at.bottom - at.top}"/>'
            )
        middle, label = round((start + end) / 2, 1), escape(_short(name))
        if lying:
            place = f'x="{middle}" y="{at.top - 7}" text-anchor="middle"'
        else:
            place = f'transform="translate({middle + 4:.1f} {at.top - 5}) rotate(-90)"'
        parts.append(f"<text {place}>{label}</text>")
    return "".join(parts)


def _short(name: str) -> str:
    return name if len(name) <= 9 else f"{name[:8]}…"


def hovers(at: Axes, phases: Phases, told: Sequence[str]) -> str:
    """Unseen boxes over the phases that tell what is in them."""
    return "".join(
        f'<rect class="hover" x="{at.x(first)}" y="{at.top}"'
        f' width="{at.x(last) - at.x(first):.1f}" height="{at.height - at.bottom - at.top}">'
        f"<title>{escape(text)}</title></rect>"
        for (_, first, last), text in zip(phases, told, strict=True)
    )


def curve(at: Axes, runs: Iterable[Points], style: str = "") -> str:
    """One line through each run of points."""
    path = "".join(
        "M" + "L".join(f"{at.x(x)} {at.y(y)}" for x, y in points) for points in runs if points
    )
    return f'<path class="curve {style}" d="{path}"/>'


def stairs(at: Axes, points: Points, style: str) -> str:
    """A line that keeps each value until the next one."""
    corners = [points[0]]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((at.high[0], corners[-1][1]))
    return curve(at, [corners], style)


def dots(at: Axes, points: Points, told: Sequence[str], radius: float = 3) -> str:
    """Filled dots that tell their figures."""
    return _marks(at, points, told, f'<circle class="dot" r="{radius}"', "circle")


def rings(at: Axes, points: Points, told: Sequence[str]) -> str:
    """Open rings that tell their figures."""
    return _marks(at, points, told, '<circle class="ring" r="4.5"', "circle")


STAR = "M0 -10L2.9 -3.1L10 -3.1L4.3 1.6L6.4 9L0 4.6L-6.4 9L-4.3 1.6L-10 -3.1L-2.9 -3.1Z"


def stars(at: Axes, points: Points, told: Sequence[str]) -> str:
    """Stars that tell their figures."""
    return _marks(at, points, told, f'<path class="star" d="{STAR}"', "path")


def _marks(at: Axes, points: Points, told: Sequence[str], start: str, tag: str) -> str:
    return "".join(
        f'{start} transform="translate({at.x(x)} {at.y(y)})"><title>{escape(text)}</title></{tag}>'
        for (x, y), text in zip(points, told, strict=True)
    )


def svg(at: Axes, inner: str, label: str, style: str = "chart") -> str:
    """The picture; `label` is what is read out in its place."""
    return (
        f'<svg class="{style}" viewBox="0 0 {at.width} {at.height}" role="img"'
        f' aria-label="{escape(label)}">{inner}</svg>'
    )
