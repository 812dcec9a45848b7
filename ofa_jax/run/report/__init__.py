"""A run as one page, `report.html`: its training, search results and costs, for people."""

from pathlib import Path

from ofa_jax.errors import InputError
from ofa_jax.files import read_text, short, write_text
from ofa_jax.run.report import costs, grid, search, subnets, summary, training
from ofa_jax.run.report.page import document, paragraph
from ofa_jax.run.report.read import RunFiles, read_run
from ofa_jax.run.report.template import Markup, filled

SECTIONS = {
    "": summary.summary,
    "Training": training.training,
    "The grid": grid.grid,
    "Search": search.search,
    "Subnets": subnets.subnets,
    "Time and throughput": costs.costs,
    "Environment": costs.environment,
}
# What comes of the files of another version, whose fields mean something else: the run continues.
UNEXPECTED = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)


def write_report(workdir: Path) -> Path:
    """Writes `workdir/report.html` of the files that exist, whole or not at all.

    One self-contained page. Missing files are shown as not written yet, and a part whose
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
    if not _holds(path, page):  # a command that does nothing touches nothing
        write_text(path, page)
    return path


def _holds(path: Path, page: str) -> bool:
    try:
        return read_text(path) == page
    except InputError:
        return False


def _section(title: str, run: RunFiles, workdir: Path) -> Markup:
    try:
        body = SECTIONS[title](run, workdir)
    except UNEXPECTED as error:
        message = f"This part cannot be shown: {type(error).__name__}: {short(error)}"
        body = paragraph(message, "soft")
    heading = "{% if title %}<h2>{{ title }}</h2>\n{% endif %}"
    return filled(heading + "{{ body }}", title=title, body=body)
