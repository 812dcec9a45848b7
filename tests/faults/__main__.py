"""Disturbs runs of configs/smoke.py in every stage, and compares what they make, bit for bit.

    PYTHONPATH=.:tests python -m faults --kills=12 --signals=12 --seed=0

Prints tables of what was done and how often, as Markdown (docs/faults.md); ends with code 1 where
anything was lost, reported in other words or made differently. A restart takes about half a minute
on two CPU cores, all of it half an hour. Mounts small file systems, for which it needs root.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from faults.places import CASES, Undisturbed
from faults.running import DONE, STAGES, check_same, finished, made_by, seconds_of_stages, whole_job
from faults.stops import SIGNALS, stop_runs
from main_runs import restore_signals

PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "grain")


def undisturbed_runs(directory):
    """A run that compiles, and one that does not: what both made, and the seconds of each stage."""
    compiling, workdir = (directory / name / "run" for name in ("compiling", "undisturbed"))
    kept = directory / "seconds.json"
    if not kept.exists():
        finished(compiling)
        run = whole_job(workdir)
        kept.write_text(json.dumps(seconds_of_stages(run, workdir)))
        assert run.wait().code == 0
    found = Undisturbed(workdir, made_by(compiling))
    check_same(workdir, found.expected)
    return found, json.loads(kept.read_text())


def stops_table(counts):
    """How often each signal stopped a run in each stage."""
    columns = (*STAGES, DONE) if any(stage == DONE for _, stage in counts) else STAGES
    rows = [("", *columns, "all"), ("---",) * (len(columns) + 2)]
    for how in SIGNALS:
        own = [counts[how, stage] for stage in columns]
        rows.append((how, *map(str, own), str(sum(own))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def places_table(counts):
    """How often each other fault was met and put right."""
    rows = ["| fault | first in | times |", "|---|---|---|"]
    for name, cases in CASES.items():
        rows.append(f"| {name} | {', '.join(cases)} | {counts[name]} |")
    return "\n".join(rows)


def meet(wanted, undisturbed, directory, rng):
    """The cases whose names contain `wanted`: how often each went well, and failures."""
    counts, failures = Counter(), 0
    for name, cases in CASES.items():
        for stage, case in cases.items() if wanted in name else ():
            began = time.monotonic()
            try:
                case(undisturbed, Path(tempfile.mkdtemp(dir=directory)), rng)
                counts[name] += 1
            except Exception:
                failures += 1
                traceback.print_exc()
            print(f"{name}, {stage}: {time.monotonic() - began:.0f} s", flush=True)
    return counts, failures


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--signals", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="other faults whose names contain this; 'none'")
    parser.add_argument("--scratch", help="keep everything there, and go on with what is there")
    return parser.parse_args()


def main():
    arguments = parsed()
    restore_signals()
    rng = random.Random(arguments.seed)
    others = itertools.cycle(how for how in SIGNALS if how != "SIGKILL")
    hows = ["SIGKILL"] * arguments.kills + list(itertools.islice(others, arguments.signals))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(arguments.scratch or scratch)
        (directory / "compiled").mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("OFA_JAX_COMPILED", str(directory / "compiled"))
        undisturbed, seconds = undisturbed_runs(directory)
        print({stage: round(value, 1) for stage, value in seconds.items()}, flush=True)
        stops = stop_runs(hows, directory, undisturbed.expected, seconds, rng)
        places, failures = meet(arguments.only, undisturbed, directory, rng)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(f"\n{stops_table(stops)}\n\n{places_table(places)}\n")
    print(f"Python {platform.python_version()}, {versions}")
    sys.exit(f"{failures} faults were not put right" if failures else 0)


if __name__ == "__main__":
    main()
