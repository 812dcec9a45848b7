"""What the run took, and where."""

import datetime
import importlib.metadata
import json
import platform
from html import escape
from pathlib import Path

from ofa_jax.metrics import clock
from ofa_jax.report.page import (
    NOT_YET,
    Html,
    facts,
    percent,
    table,
)
from ofa_jax.report.read import Run

VERSIONS = ("ofa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def costs(run: Run, workdir: Path) -> str:
    """Time and throughput of each phase."""
    named = [*((str(row["phase"]), row) for row in run.ends),
             *((name, row) for name, log in run.tuned.items() for row in log.ends)]  # fmt: skip
    if not named:
        return NOT_YET
    total = sum(row["seconds"] for _, row in named)
    longest = max(row["seconds"] for _, row in named)
    rows = [
        (name, clock(row["seconds"]), _meter(row["seconds"] / longest),
         f"{row['images_per_second']:,.0f}", percent(row["waited_for_data"]),
         f"{row.get('skipped_images', 0):,.0f}")
        for name, row in named
    ]  # fmt: skip
    heads = ("phase or subnet", "time", "", "images/s", "waited for data", "images skipped")
    return (
        table(
            heads,
            [*rows, ("all", clock(total), "", "", "", "")],
            "By phase, and by subnet that was fine-tuned",
        )
        + '<p class="soft">Time is that of the process that ended the phase: what was done before'
        " a run was stopped and went on is not in it. Evaluation and search are not counted.</p>"
    )


def _meter(share: float) -> Html:
    return Html(f'<span class="meter" style="width:{6 * share:.2f}rem" aria-hidden="true"></span>')


def environment(run: Run, workdir: Path) -> str:
    """Versions and machine of the process that writes the report, and the config."""
    # Late: it asks for the devices.
    from ofa_jax.subnets.latency import machine

    about = {key: value for key, value in machine().items() if key not in VERSIONS}
    rows = [("as of", _newest(workdir)), *about.items(),
            ("Python", platform.python_version()),
            *((name, _version(name)) for name in VERSIONS)]  # fmt: skip
    config = escape(json.dumps(run.config, indent=1))
    folded = f"<details><summary>The run's config</summary><pre>{config}</pre></details>"
    return facts(rows) + (folded if run.config else "")


def _newest(workdir: Path) -> str:
    """When the run last wrote what the page tells; not now, so that the page stays as it is."""
    patterns = ("*.json*", "search/*.json*", "subnets/*/card.json")
    times = [path.stat().st_mtime for pattern in patterns for path in workdir.glob(pattern)]
    if not times:
        return "nothing yet"
    return f"{datetime.datetime.fromtimestamp(max(times), datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
