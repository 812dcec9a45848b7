"""The curriculum and the learning curves."""

from collections.abc import Sequence
from pathlib import Path

from ofa_jax.run.report import charts
from ofa_jax.run.report.page import NOT_YET, axis_percent, figure, paragraph, percent, table
from ofa_jax.run.report.read import CURVES, RunFiles, Step, phases_of, top1_of
from ofa_jax.run.report.template import Markup, filled, joined

# How each of CURVES is shown: its title, its numbers and its colour.
LOOKS: dict[str, tuple[str, charts.Number, str]] = {
    "loss": ("Loss", lambda v: f"{v:g}", ""),
    "accuracy": ("Accuracy on training images", axis_percent, "three"),
    "learning_rate": ("Learning rate", lambda v: f"{v:g}", "two"),
}


def training(run: RunFiles, workdir: Path) -> Markup:
    """The curriculum, the curves, and held-out accuracy after each phase."""
    parts = [_curriculum(run)]
    if run.steps:
        figures = [learning_curve(run.steps, name) for name in CURVES]
        if run.held_out:
            figures.append(figure(_after_phases(run), "Held-out top-1 after each phase"))
        parts.append(filled('<div class="pair">{{ figures }}</div>', figures=joined(figures)))
        size = sum(step.weight for step in run.steps) / len(run.steps)
        if size > 1.5:
            parts.append(paragraph(f"Each point is the mean of about {size:.0f} steps.", "soft"))
    parts.append(_held_out_table(run))
    return joined(parts) if run.steps or run.curriculum else NOT_YET


def _curriculum(run: RunFiles) -> Markup:
    spans = {name: (first, last) for name, first, last in run.phases}
    rows = []
    for name in run.curriculum:
        phase = run.config.get("phases", {}).get(name, {})
        first, last = spans.get(name, (None, None))
        steps = "not yet" if first is None else f"{first:,.0f} to {last:,.0f}"
        opened = [
            f"{short} {', '.join(f'{v:g}' for v in phase[key])}"
            for key, short in (("kernels", "kernel"), ("depths", "depth"), ("expands", "expand"),
                               ("widths", "width"))
            if phase.get(key)
        ]  # fmt: skip
        rows.append((name, steps, phase.get("subnets", ""), phase.get("epochs", ""),
                     phase.get("lr", ""), "; ".join(opened) or "all choices"))  # fmt: skip
    heads = ("phase", "steps", "subnets a step", "epochs", "rate", "open (what is not named: all)")
    return table(heads, rows, "The curriculum") if rows else Markup("")


def learning_curve(steps: Sequence[Step], name: str) -> Markup:
    """One of CURVES over the steps, with the phases that they are of."""
    column, phases = CURVES.index(name), phases_of(steps)
    title, number, style = LOOKS[name]
    points = [(s.middle, s.values[column]) for s in steps]
    at = charts.by_step(points, phases, number)
    runs = [
        [(s.middle, s.values[column]) for s in steps if s.phase == phase] for phase, _, _ in phases
    ]
    tooltips = [_tooltip(phase, points, name) for phase, points in zip(phases, runs, strict=True)]
    charts.curve(at, runs, style)
    charts.hovers(at, phases, tooltips)
    label = f"{title} from {points[0][1]:.4g} at the first step to {points[-1][1]:.4g} at the last"
    return figure(charts.svg(at, label), f"{title} by step")


def _tooltip(phase: tuple[str, float, float], points: charts.Points, name: str) -> str:
    spoken = name.replace("_", " ")
    return (
        f"{phase[0]}, steps {phase[1]:,.0f} to {phase[2]:,.0f}:"
        f" {spoken} {points[0][1]:.4g} to {points[-1][1]:.4g}"
    )


def _after_phases(run: RunFiles) -> Markup:
    points, tooltips, means = [], [], []
    for row in run.held_out:
        top1 = top1_of(row)
        points += [(row["step"], value) for value in top1.values()]
        tooltips += [f"{row['phase']}, {name.replace('_', ', ')} px: {value:.2%}"
                     for name, value in top1.items()]  # fmt: skip
        means.append((row["step"], sum(top1.values()) / len(top1)))
    # As far as the curves beside it.
    ends = [(step, means[0][1]) for _, *span in run.phases for step in span]
    at = charts.by_step([*points, *ends], run.phases, axis_percent)
    charts.curve(at, [means], "two")
    charts.marks(at, points, tooltips, "dot")
    label = f"Held-out top-1, mean {means[0][1]:.2%} after the first phase, {means[-1][1]:.2%} last"
    return charts.svg(at, label)


def _held_out_table(run: RunFiles) -> Markup:
    rows = []
    for row in run.held_out:
        top1 = top1_of(row)
        worst = min(top1, key=lambda name: top1[name])
        largest = [value for name, value in top1.items() if name.startswith("largest")]
        rows.append((row["phase"], len(top1), percent(sum(top1.values()) / len(top1)),
                     percent(largest[-1]) if largest else "", percent(top1[worst]),
                     worst.replace("_", ", ") + " px"))  # fmt: skip
    heads = ("after phase", "subnets", "mean", "largest", "worst", "which")
    caption = "Held-out top-1 (the line above is the mean, dots are subnets)"
    return table(heads, rows, caption) if rows else Markup("")
