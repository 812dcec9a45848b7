"""The evaluated grid as heat maps."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ofa_jax.report.page import NOT_YET, millions, percent, spoken, table
from ofa_jax.report.read import Row, Run


def grid(run: Run, workdir: Path) -> str:
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
    told = (
        f"<p>Top-1 on the {spoken(str(rows[0]['split']))} images, each subnet calibrated; below it"
        f" its MACs. From {min(values):.2%} (pale) to {max(values):.2%} (strong); the best is"
        " outlined.</p>"
    )
    listed = table(
        ("subnet", "px", "top-1", "loss", "MACs", "parameters"),
        [(row["name"], row["resolution"], percent(row["top1"]), f"{row['loss']:.3f}",
          millions(row["macs"]), millions(row["params"], 3)) for row in rows],
    )  # fmt: skip
    return f"{told}{''.join(maps)}<details><summary>As a list</summary>{listed}</details>"


def _heat(run: Run, rows: Sequence[Row], size: int, low: float, high: float) -> str:
    across = "ks" if all("ks" in row["arch"] for row in rows) else "w"
    cells = {(_most(row, "d"), _most(row, "e"), _most(row, across)): row for row in rows}
    columns = sorted({key[2] for key in cells})
    heads = "".join(f'<th scope="col">{_column(run, across, value)}</th>' for value in columns)
    lines = []
    for depth, expand in sorted({key[:2] for key in cells}):
        inner = "".join(_cell(cells.get((depth, expand, column)), low, high) for column in columns)
        lines.append(f'<tr><th scope="row">depth {depth:g}, expand {expand:g}</th>{inner}</tr>')
    return (
        f'<p class="caption">{size} px</p>\n'
        f'<div class="box" tabindex="0" role="region" aria-label="Grid at {size} px">'
        f'<table class="heat">'
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(row: Row | None, low: float, high: float) -> str:
    if row is None:
        return "<td></td>"
    share = (row["top1"] - low) / (high - low) if high > low else 0.5
    told = f"{row['name']}: loss {row['loss']:.3f}, {millions(row['params'], 3)} parameters"
    best = ' class="best"' if row["top1"] == high else ""
    return (
        f'<td{best} style="--v:{share:.2f}" title="{escape(told)}">{row["top1"]:.2%}'
        f"<small>{millions(row['macs'])}</small></td>"
    )


def _most(row: Row, key: str) -> float:
    """A grid's subnet has one value everywhere, but for stages of fixed depth."""
    return max(value for value in row["arch"].get(key, [0]) if value is not None)


def _column(run: Run, key: str, value: float) -> str:
    if key == "ks":
        return f"kernel {value:g}"
    widths = run.space.widths if run.space else ()
    return f"width {widths[int(value)]:g}" if widths else f"width choice {value:g}"
