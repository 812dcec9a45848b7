"""A run as one page, `report.html`: what it learnt, found and cost, for people."""

from html import escape
from pathlib import Path

from ofa_jax.report import costs, grid, search, subnets, summary, training
from ofa_jax.report.page import document
from ofa_jax.report.read import Run, read_run

SECTIONS = {
    "": summary.summary,
    "Training": training.training,
    "The grid": grid.grid,
    "Search": search.search,
    "Subnets": subnets.subnets,
    "Time and throughput": costs.costs,
    "Environment": costs.environment,
}


def write_report(workdir: Path) -> Path:
    """Writes `workdir/report.html` of the files that are there, whole or not at all.

    One self-contained page. Files that are missing are told as not there yet, and a part whose
    files are not as expected says so in its place. For one process alone: of several, only one
    should.

    Args:
      workdir: of the run, at any time.

    Returns:
      The path of the page.

    Raises:
      OSError: the page could not be written.
    """
    run = read_run(workdir)
    body = [_section(title, run, workdir) for title in SECTIONS]
    page, path = document(run.name, body), workdir / "report.html"
    if path.exists() and path.read_text(encoding="utf-8") == page:
        return path  # a command that does nothing touches nothing
    temporary = path.with_name(".report.html.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _section(title: str, run: Run, workdir: Path) -> str:
    heading = f"<h2>{title}</h2>\n" if title else ""
    try:
        return heading + SECTIONS[title](run, workdir)
    except Exception as error:  # whatever a file of another version holds: the run goes on
        told = escape(f"cannot be shown: {type(error).__name__}: {error}")
        return f'{heading}<p class="soft">This part {told}</p>'
