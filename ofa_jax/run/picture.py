"""The front as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ofa_jax.files import written
from ofa_jax.search.front import Front

Points = Sequence[tuple[float, float]]  # (cost, accuracy)
SEEN = 20_000  # of the evaluated subnets, dots to draw: more look the same


def draw_front(
    path: Path,
    front: Front,
    uniform: Points,
    measured: Points,
    winners: Points,
    unit: tuple[str, float],
) -> None:
    """Draws accuracy against cost and writes a PNG, whole or not at all.

    Args:
      path: of the picture.
      front: the search's.
      uniform: predicted, of subnets with one choice everywhere.
      measured: of the subnets that the predictor learnt from.
      winners: measured, of subnets of the front.
      unit: what costs are shown in: its name, and how much one is.
    """
    # Half a second, for a search alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    name, size = unit
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    seen = front.seen[:: max(len(front.seen) // SEEN, 1)]
    axes.scatter(seen[:, 0] / size, seen[:, 1], s=2, c="#b8c4d0", linewidths=0,
                 label=f"{len(front.seen):,} subnets looked at, predicted")  # fmt: skip
    x, y = _scaled([(f.cost, f.score) for f in front.found], size)
    axes.step(x, y, where="post", c="#d1495b", lw=2, zorder=3,
              label=f"front of {len(x)} subnets, predicted")  # fmt: skip
    styles: tuple[tuple[Points, dict[str, Any], str], ...] = (
        (measured, {"s": 16, "marker": "x", "c": "#30638e", "lw": 0.8}, "random, measured"),
        (uniform, {"s": 30, "marker": "s", "c": "#edae49", "ec": "k", "lw": 0.6},
         "uniform grid, predicted"),
        (winners, {"s": 130, "marker": "*", "c": "#d1495b", "ec": "k", "lw": 0.8},
         "of the front, measured"),
    )  # fmt: skip
    for points, style, label in styles:
        axes.scatter(*_scaled(points, size), label=label, zorder=4, **style)
    axes.set_xlabel(f"cost, {name}")
    axes.set_ylabel("top-1 accuracy on held-out images")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    # From the worst that was measured or is on the front: below are only bad subnets.
    lowest = min([*y, *(value for _, value in (*measured, *winners))])
    highest = max([*y, *(value for _, value in (*measured, *winners))])
    margin = 0.05 * (highest - lowest + 1e-3)
    axes.set_ylim(lowest - margin, highest + margin)
    axes.legend(loc="lower right", fontsize=9)
    axes.grid(alpha=0.3)
    axes.set_title(f"hypervolume {front.hypervolume:.4f}", fontsize=10, loc="right")
    with written(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _scaled(points: Points, size: float) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(points, float).reshape(-1, 2).T
    return x / size, y
