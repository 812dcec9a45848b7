"""Accuracy against cost: random subnets, the predicted front, the winners."""

from collections.abc import Sequence
from pathlib import Path

from ofa_jax.errors import InputError
from ofa_jax.run.config import from_dict
from ofa_jax.run.costs import UNITS, cost_function
from ofa_jax.run.report import charts
from ofa_jax.run.report.page import (
    NOT_YET,
    axis_percent,
    figure,
    millions,
    paragraph,
    percent,
    table,
)
from ofa_jax.run.report.read import RunFiles
from ofa_jax.run.report.template import Markup, filled, joined
from ofa_jax.storage import as_path


def search(run: RunFiles, workdir: Path) -> Markup:
    """Accuracy against cost: random subnets, the predicted front and the winners."""
    if not run.found and not run.measured:
        return NOT_YET
    kind = str(run.found.get("cost") or run.config.get("search", {}).get("cost", "macs"))
    scatter = _scatter(run, kind, _costs(run, kind, workdir))
    return joined([_predictor(run), scatter, _winners(run, kind), _compared(run)])


def _costs(run: RunFiles, kind: str, workdir: Path) -> list[float]:
    """What each measured subnet costs; none where that cannot be counted."""
    if run.space is None or not run.classes_known:
        return []
    try:
        config = from_dict(run.config)
    except InputError:
        return []
    table = as_path(config.search.latency_table or workdir / "search" / "latency.json")
    if kind != config.search.cost or (kind == "latency" and not table.exists()):
        return []
    cost = cost_function(config, run.space, workdir / "search")
    return [float(cost(run.space.arch_from_dict(row["arch"]), row["resolution"]))
            for row in run.measured]  # fmt: skip


def _scatter(run: RunFiles, kind: str, costs: Sequence[float]) -> Markup:
    unit, size = UNITS[kind]
    measured = [(c / size, r["top1"]) for c, r in zip(costs, run.measured, strict=False)]
    front = [(r[kind] / size, r["predicted"]) for r in run.front.get("front") or []]
    random = [(r["cost"] / size, r["held_out"]) for r in run.found.get("random") or []]
    rows = run.found.get("found") or []
    winners = [(r[kind] / size, r["held_out"]) for r in rows]
    points = [*measured, *front, *random, *winners]
    if not points:
        return Markup("")
    at = charts.axes(points, 640, 380, 70, 16)
    tooltips = [f"{row['name']}: {text}" for row, text in
                zip(rows, _tooltips("winner", winners, unit), strict=True)]  # fmt: skip
    charts.frame(at, unit, axis_percent, lambda v: f"{v:g}")
    charts.marks(at, measured, _tooltips("random", measured, unit), "dot")
    charts.marks(at, random, _tooltips("random, of equal cost", random, unit), "ring")
    if front:
        charts.stairs(at, front, "two")
    charts.marks(at, winners, tooltips, "star")
    charts.letters(at, winners, [_letter(i) for i in range(len(winners))])
    label = f"Held-out top-1 against {unit}: {len(measured)} random subnets, {len(front)} on front"
    picture = charts.svg(at, label, "chart wide")
    return figure(picture, f"Held-out top-1 against {unit}") + _key(
        bool(measured), bool(random), bool(front), bool(winners)
    )


def _tooltips(what: str, points: charts.Points, unit: str) -> list[str]:
    return [f"{what}, {y:.2%} at {x:.4g} {unit}" for x, y in points]


KEY = """\
<ul class="key">{% for there, style, mark, label in entries if there %}\
<li><span class="{{ style }}" aria-hidden="true">{{ mark }}</span> {{ label }}</li>\
{% endfor %}</ul>"""


def _letter(i: int) -> str:
    return chr(ord("A") + i) if i < 26 else str(i + 1)


def _key(measured: bool, random: bool, front: bool, winners: bool) -> Markup:
    entries = (
        (measured, "one", "●", "random subnet, measured"),
        (random, "three", "○", "random, of the middle winner's cost, measured"),
        (front, "two", "┛", "front, predicted"),
        (winners, "two", "★", "winner, measured"),
    )
    return filled(KEY, entries=entries)


def _predictor(run: RunFiles) -> Markup:
    report = run.found.get("predictor")
    if not report:
        return paragraph(f"{len(run.measured):,} random subnets measured so far.")
    volume = run.front.get("hypervolume")
    note = f" Hypervolume of the front {volume:.4f}." if volume else ""
    return paragraph(
        f"The predictor, on {report['held_out_archs']} subnets it has not seen: Kendall's tau"
        f" {report['kendall_tau']:.2f}, Spearman's rho {report['spearman']:.2f}, RMSE"
        f" {100 * report['rmse']:.2f} points.{note}"
    )


def _winners(run: RunFiles, kind: str) -> Markup:
    unit, size = UNITS[kind]
    extra = [] if kind == "macs" else [unit]
    rows = [
        (f"{_letter(i)}: {r['name']}", r["resolution"],
         *[f"{r[kind] / size:.4g}"] * len(extra), millions(r["macs"]), millions(r["params"], 3),
         percent(r["predicted"]), percent(r["held_out"]))
        for i, r in enumerate(run.found.get("found") or [])
    ]  # fmt: skip
    heads = ("winner", "px", *extra, "MACs", "parameters", "predicted", "held out")
    return table(heads, rows, "What the search found") if rows else Markup("")


def _compared(run: RunFiles) -> Markup:
    rows, random = run.found.get("found") or [], run.found.get("random") or []
    if not rows or not random:
        return Markup("")
    row, top1 = rows[len(rows) // 2], [r["held_out"] for r in random]
    beaten = sum(row["held_out"] > value for value in top1)
    level = sum(row["held_out"] == value for value in top1)
    return paragraph(
        f"{row['name']}: {row['held_out']:.2%}. {len(top1)} random subnets of its cost: mean"
        f" {sum(top1) / len(top1):.2%}, best {max(top1):.2%}; it beats {beaten} and is level with"
        f" {level}."
    )
