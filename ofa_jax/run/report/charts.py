"""Curves and scatter plots as SVG: Matplotlib draws them, the page gives them its colours.

What is drawn is known by its `gid`, which becomes the class that the page's style sheet colours, by
day and by night; a `url` becomes a tooltip.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from ofa_jax.run.report.template import Markup

if TYPE_CHECKING:  # it takes a while to load, and a page is written at the end
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]
Phases = Sequence[tuple[str, float, float]]  # name, first and last step
Number = Callable[[float], str]
PLACES = ("d", "x", "y", "transform", "viewBox")  # attributes that say where something is
BOTTOM, RIGHT = 46.0, 14.0  # below a plot, and to its right
UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML


def axes(points: Points, width: float, height: float, left: float, top: float) -> "Axes":
    """Axes that hold all points, with a little room above and below; sizes are in pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    inner = (width - left - RIGHT, height - BOTTOM - top)
    at = figure.add_axes(
        (left / width, BOTTOM / height, inner[0] / width, inner[1] / height), frameon=False
    )
    (low, bottom), (high, top) = np.nanmin(points, 0), np.nanmax(points, 0)
    room = 0.06 * (top - bottom) or 0.01
    at.set(xlim=(low, high if high > low else low + 1), ylim=(bottom - room, top + room))
    return at


def frame(at: "Axes", across: str, number: Number, cost: Number) -> None:
    """Lines and figures of both axes, and the name of the lower one."""
    from matplotlib.ticker import MaxNLocator

    for axis, limits, most, spoken in (
        (at.xaxis, at.get_xlim(), 5, cost), (at.yaxis, at.get_ylim(), 6, number),
    ):  # fmt: skip
        low, high = limits
        values = MaxNLocator(most, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
        inside = [value for value in values if low <= value <= high]
        axis.set_ticks(inside, labels=[spoken(float(value)) for value in inside])
    at.tick_params(length=0, pad=6, labelsize=12)
    at.hlines(at.get_yticks(), *at.get_xlim(), gid="line")
    at.set_xlabel(across, fontsize=12)


def by_step(points: Points, phases: Phases, number: Number) -> "Axes":
    """Axes over a run's steps, every other phase shaded, each with its name above."""
    width, left = 480, 66
    whole = sum(last - first for _, first, last in phases) or 1
    lying = all(  # names stand upright where a phase is too narrow for its own
        10 * len(_short(name)) < (last - first) / whole * (width - left - RIGHT)
        for name, first, last in phases
    )
    at = axes(points, width, 290, left, 26 if lying else 78)
    for index, (name, first, last) in enumerate(phases):
        if index % 2 == 0:
            at.axvspan(first, last, gid="band", zorder=0)
        at.annotate(
            _short(name), ((first + last) / 2, 1), (0, 6), at.get_xaxis_transform(),
            textcoords="offset points", rotation=0 if lying else 90, rotation_mode="anchor",
            ha="center" if lying else "left", va="baseline" if lying else "center", fontsize=12,
            parse_math=False, annotation_clip=False,
        )  # fmt: skip
    frame(at, "step", number, lambda step: f"{step:,.0f}")
    return at


def _short(name: str) -> str:
    short = name if len(name) <= 9 else f"{name[:8]}…"
    return UNPRINTABLE.sub("\ufffd", short)


def hovers(at: "Axes", phases: Phases, tooltips: Sequence[str]) -> None:
    """Invisible boxes over the phases, with tooltips."""
    for (_, first, last), text in zip(phases, tooltips, strict=True):
        at.axvspan(first, last, gid="hover", url=text, zorder=9)


def curve(at: "Axes", runs: Iterable[Points], style: str = "") -> None:
    """One line through each run of points."""
    for points in filter(None, runs):
        at.plot(*np.transpose(points), gid=f"curve {style}".strip())


def stairs(at: "Axes", points: Points, style: str) -> None:
    """A line that keeps each value until the next one."""
    last = (at.get_xlim()[1], points[-1][1])
    at.step(*np.transpose([*points, last]), where="post", gid=f"curve {style}")


def marks(at: "Axes", points: Points, tooltips: Sequence[str], style: str) -> None:
    """Marks with tooltips: a "dot", a "ring" or a "star"."""
    marker, size = {"dot": ("o", 36), "ring": ("o", 81), "star": ("*", 324)}[style]
    if points:
        x, y = np.transpose(points)
        at.scatter(x, y, s=size, marker=marker, urls=tooltips, gid=style, zorder=3)


def letters(at: "Axes", points: Points, texts: Sequence[str]) -> None:
    """A letter above each point."""
    for point, text in zip(points, texts, strict=True):
        at.annotate(text, point, (0, 13), textcoords="offset points", ha="center", fontsize=12,
                    gid="strong letter", annotation_clip=False)  # fmt: skip


def svg(at: "Axes", label: str, style: str = "chart") -> Markup:
    """The picture; `label` is what is read out in its place."""
    import matplotlib as mpl

    file = io.StringIO()
    # Text stays text, in whatever font the page has; the salt makes the ids the picture's own.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": label}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        at.figure.canvas.print_figure(file, format="svg")
    root = ElementTree.fromstring(UNPRINTABLE.sub("\ufffd", file.getvalue()))
    for element in root.iter():
        _restyle(element)
    root.attrib = {"class": style, "viewBox": root.attrib["viewBox"], "role": "img",
                   "aria-label": label}  # fmt: skip
    return Markup(ElementTree.tostring(root, "unicode", short_empty_elements=False))


def _restyle(element: ElementTree.Element) -> None:
    """Takes the library's own colours away, and puts a class and a tooltip in their place."""
    names = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    element.tag = element.tag.rpartition("}")[2]
    anchor = re.search(r"text-anchor: (\w+)", names.pop("style", ""))
    kept = {name: value for name, value in names.items() if name in PLACES}
    if anchor:
        kept["text-anchor"] = anchor[1]
    if element.tag == "a":  # of a tooltip
        element.tag = "g"
        title = ElementTree.Element("title")
        title.text = names["href"]
        element.insert(0, title)
    elif element.tag == "use":
        kept["href"] = names["href"]
    elif element.tag == "g" and not re.search(r"_\d+$", names.get("id", "_0")):
        kept["class"] = names["id"]  # a `gid`: the library's own are numbered
    elif element.tag == "path" and "id" in names:
        kept["id"] = names["id"]  # of a mark, which is used at every point
    element.attrib = kept
    for child in list(element):
        if child.tag.endswith(("}metadata", "}style", "}clipPath")):
            element.remove(child)
