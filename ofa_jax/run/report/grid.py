"""The evaluated grid as heat maps."""

from collections.abc import Sequence
from pathlib import Path

from ofa_jax.run.report.page import NOT_YET, folded, millions, paragraph, percent, spoken, table
from ofa_jax.run.report.read import Row, RunFiles
from ofa_jax.run.report.template import Markup, filled, joined


def grid(run: RunFiles, workdir: Path) -> Markup:
    """Heat maps of the evaluated grid, one for each resolution, and the same as a list."""
    rows = run.evaluation.get("subnets") or []
    if not rows:
        return NOT_YET
    values = [row["top1"] for row in rows]
    maps = [
        _heat(run, [row for row in rows if row["resolution"] == size], size, min(values),
              max(values))
        for size in sorted({row["resolution"] for row in rows})
    ]  # fmt: skip
    explanation = (
        f"Top-1 on the {spoken(str(rows[0]['split']))} images, each subnet calibrated; below it"
        f" its MACs. From {min(values):.2%} (pale) to {max(values):.2%} (strong); the best is"
        " outlined."
    )
    listed = table(
        ("subnet", "px", "top-1", "loss", "MACs", "parameters"),
        [(row["name"], row["resolution"], percent(row["top1"]), f"{row['loss']:.3f}",
          millions(row["macs"]), millions(row["params"], 3)) for row in rows],
    )  # fmt: skip
    return joined([paragraph(explanation), *maps, folded("As a list", listed)])


HEAT = """\
<p class="caption">{{ size }} px</p>
<div class="box" tabindex="0" role="region" aria-label="Grid at {{ size }} px">\
<table class="heat"><thead><tr><th></th>\
{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead><tbody>\
{% for head, cells in lines %}<tr><th scope="row">{{ head }}</th>{{ cells }}</tr>{% endfor %}\
</tbody></table></div>"""
CELL = """\
<td{% if best %} class="best"{% endif %} style="--v:{{ share }}" title="{{ tooltip }}">\
{{ top1 }}<small>{{ cost }}</small></td>"""


def _heat(run: RunFiles, rows: Sequence[Row], size: int, low: float, high: float) -> Markup:
    across = "ks" if all("ks" in row["arch"] for row in rows) else "w"
    cells = {(_most(row, "d"), _most(row, "e"), _most(row, across)): row for row in rows}
    columns = sorted({key[2] for key in cells})
    heads = [_column(run, across, value) for value in columns]
    lines = []
    for depth, expand in sorted({key[:2] for key in cells}):
        inner = joined(_cell(cells.get((depth, expand, column)), low, high) for column in columns)
        lines.append((f"depth {depth:g}, expand {expand:g}", inner))
    return filled(HEAT, size=size, heads=heads, lines=lines)


def _cell(row: Row | None, low: float, high: float) -> Markup:
    if row is None:
        return Markup("<td></td>")
    share = (row["top1"] - low) / (high - low) if high > low else 0.5
    tooltip = f"{row['name']}: loss {row['loss']:.3f}, {millions(row['params'], 3)} parameters"
    figures = {"top1": percent(row["top1"]), "cost": millions(row["macs"])}
    return filled(CELL, best=row["top1"] == high, share=f"{share:.2f}", tooltip=tooltip, **figures)


def _most(row: Row, key: str) -> float:
    """A grid's subnet has one value everywhere, but for stages of fixed depth."""
    return max(value for value in row["arch"].get(key, [0]) if value is not None)


def _column(run: RunFiles, key: str, value: float) -> str:
    if key == "ks":
        return f"kernel {value:g}"
    widths = run.space.widths if run.space else ()
    return f"width {widths[int(value)]:g}" if widths else f"width choice {value:g}"
