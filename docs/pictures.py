"""Draws the pictures of the concepts: masks, the phases of a curriculum, a subnet.

    python -m docs.pictures

Beside this file. The other pictures come from runs: `front.png` is `search/front.png` of
configs/digits.py, and results/cifar10_16.png is drawn by `python -m benchmarks.recipes --picture`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

import ofa_jax
from configs import imagenet_mbv3

HERE = Path(__file__).resolve().parent
USED, UNUSED, EDGE, TEXT = "#3b7dd8", "#e4e9ef", "#9aa5b1", "#1f2933"
SUBNET = "note10_lat-64ms_top1-80.2_finetune-75"  # of ofa_jax.published()
CHOICES = {"kernels": "kernel", "depths": "depth", "expands": "expand ratio"}


def main() -> None:
    """Draws each picture as a PNG."""
    mpl.rcParams.update({"font.size": 10, "text.color": TEXT})
    for name, draw in (("masks", masks), ("curriculum", curriculum), ("subnet", subnet)):
        draw().savefig(HERE / f"{name}.png", dpi=130, metadata={"Software": None})
        print(f"wrote {HERE / name}.png")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many units, of which 10 are an inch; y points down."""
    figure = Figure(figsize=(width / 10, height / 10))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, place: Sequence[float], used: bool, words: str = "") -> None:
    """A rectangle at (x, y, width, height), filled if it is used; dashed if it is not."""
    x, y, width, height = place
    style = {"facecolor": USED} if used else {"facecolor": "none", "linestyle": "--"}
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.5")
    shape.set(edgecolor=EDGE, **style)
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center",
              color="white" if used else EDGE, linespacing=1.4)  # fmt: skip


def cell(axes: Axes, place: Sequence[float], used: bool) -> None:
    """A small rectangle at (x, y, width, height) of an array."""
    x, y, width, height = place
    color = USED if used else UNUSED
    axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="white"))


def masks() -> Figure:
    """What an arch leaves of a kernel, of a block's channels and of a stage's blocks."""
    figure, axes = canvas(88, 27)
    for i in range(49):
        row, column = divmod(i, 7)
        used = 1 <= row <= 5 and 1 <= column <= 5
        cell(axes, (2 + 2 * column, 6 + 2 * row, 2, 2), used)
    for i in range(24):
        cell(axes, (24 + 1.1 * i, 6, 1.1, 14), i < 16)
    for i in range(4):
        box(axes, (57 + 7.5 * i, 10, 6.5, 6.5), i < 2, "block" if i < 2 else "+ 0")
    for x, title, below in (
        (2, "kernel 5 of 7", "the other positions are zero"),
        (24, "expand ratio 4 of 6", "the other channels are zero"),
        (57, "depth 2 of 4", "the other blocks add zero to their input"),
    ):
        axes.text(x, 3, title, weight="bold", va="center")
        axes.text(x, 23.5, below, va="center")
    return figure


def opened(config: Any, space: ofa_jax.SearchSpace) -> dict[str, dict[str, tuple[Any, ...]]]:
    """The open choices of each phase, by dimension; all of the space's unless a phase says less."""
    return {
        phase: {
            field: tuple(config.phases[phase].get(field) or getattr(space, field))
            for field in CHOICES
        }
        for phase in config.curriculum
    }


def curriculum() -> Figure:
    """The phases of configs/imagenet_mbv3.py, and which choices each one opens."""
    config = imagenet_mbv3.get_config()
    space = ofa_jax.get_space(config.space.name)
    figure, axes = canvas(96, 24)
    for y, name in zip((9, 14, 19), CHOICES.values(), strict=True):
        axes.text(1, y + 1.5, name, va="center")
    for column, (phase, choices) in enumerate(opened(config, space).items()):
        x = 14 + 13.8 * column
        axes.text(x, 5, phase, weight="bold", va="center")
        for y, (field, found) in zip((9, 14, 19), choices.items(), strict=True):
            for i, value in enumerate(getattr(space, field)):
                box(axes, (x + 4 * i, y, 3.4, 3.2), value in found, str(value))
    axes.annotate("", (95, 2), (14, 2), arrowprops={"arrowstyle": "->", "color": EDGE})
    return figure


def subnet() -> Figure:
    """A published subnet: its blocks, as wide as their expand ratio, and those it skips."""
    net = ofa_jax.published()[SUBNET]
    arch = net.space.arch_to_dict(net.arch)
    most = max(net.space.depths)
    figure, axes = canvas(88, 5 + 6 * len(net.space.stages))
    cost = ofa_jax.macs(net.space, net.arch, net.resolution)
    size = ofa_jax.params(net.space, net.arch)
    axes.text(1, 2.2, f"{SUBNET}: {cost / 1e6:,.0f}M MACs at {net.resolution} px,"
              f" {size / 1e6:.1f}M parameters", weight="bold", va="center")  # fmt: skip
    for row, stage in enumerate(net.space.stages):
        y = 5 + 6 * row
        axes.text(1, y + 2.3, f"stage {row + 1}, {stage.width} channels", va="center")
        for i in range(most):
            kernel, expand = (arch[key][most * row + i] for key in ("ks", "e"))
            used = kernel is not None
            words = f"{kernel}\u00d7{kernel}" if used else "skipped"
            box(axes, (22 + 16.5 * i, y, 2.6 * (expand or 6), 4.6), used, words)
    return figure


if __name__ == "__main__":
    main()
