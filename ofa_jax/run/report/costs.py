"""What the run took, and where."""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path

from ofa_jax.run.metrics import clock
from ofa_jax.run.report.page import NOT_YET, facts, folded, paragraph, percent, table
from ofa_jax.run.report.read import RunFiles
from ofa_jax.run.report.template import Markup, filled
from ofa_jax.storage import modified

VERSIONS = ("ofa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def costs(run: RunFiles, workdir: Path) -> Markup:
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
    note = (
        "Time is that of the process that ended the phase: what was done before a run was stopped"
        " and went on is not in it. Evaluation and search are not counted."
    )
    caption = "By phase, and by subnet that was fine-tuned"
    whole = ("all", clock(total), "", "", "", "")
    return table(heads, [*rows, whole], caption) + paragraph(note, "soft")


def _meter(share: float) -> Markup:
    meter = '<span class="meter" style="width:{{ width }}rem" aria-hidden="true"></span>'
    return filled(meter, width=round(6 * share, 2))


def environment(run: RunFiles, workdir: Path) -> Markup:
    """Versions and machine of the process that writes the report, and the config."""
    # Late: it initialises the devices.
    from ofa_jax.subnets.latency import machine

    about = {key: value for key, value in machine().items() if key not in VERSIONS}
    rows = [("as of", _newest(workdir)), *about.items(),
            ("Python", platform.python_version()),
            *((name, _version(name)) for name in VERSIONS)]  # fmt: skip
    if not run.config:
        return facts(rows)
    config = filled("<pre>{{ text }}</pre>", text=json.dumps(run.config, indent=1))
    return facts(rows) + folded("The run's config", config)


def _newest(workdir: Path) -> str:
    """When the run last wrote what the page shows; not now, so that the page stays as it is."""
    patterns = ("*.json*", "search/*.json*", "subnets/*/card.json")
    times = [modified(path) for pattern in patterns for path in workdir.glob(pattern)]
    if not times:
        return "nothing yet"
    return f"{datetime.datetime.fromtimestamp(max(times), datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
