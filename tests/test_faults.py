"""A few of the faults of `python -m faults`: it does many of each, this one of each kind."""

import json
import random
import shutil

import pytest
from faults import places, stops
from faults.running import STAGES, cut_short, finished, made_by, seconds_of_stages, whole_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished run, what it made, and the seconds that each stage took."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    run = whole_job(workdir)
    seconds = seconds_of_stages(run, workdir)
    end = run.wait()
    assert (end.code, end.error) == (0, []), end
    return places.Undisturbed(workdir, made_by(workdir)), seconds


def test_stopped_in_every_stage_it_ends_with_the_same_bits(undisturbed, tmp_path):
    found, seconds = undisturbed
    hows = ["SIGKILL", "SIGTERM", "SIGKILL", "Ctrl-C twice", "SIGTERM twice", "SIGKILL"]
    counts = stops.stop_runs(hows, tmp_path, found.expected, seconds, random.Random(0))
    assert sum(counts.values()) == len(STAGES)


def test_killed_between_a_phase_and_its_figures_they_are_made_up_for(undisturbed, tmp_path):
    found, _ = undisturbed
    workdir = cut_short(found.workdir, tmp_path / "run", "evaluation")
    shutil.rmtree(workdir / "supernet")
    log = workdir / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows.pop()["group"] == "held_out"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finished(workdir)
    found.check(workdir)


FEW = [
    ("standard output has no reader any more, `head -1`", "fine-tuning"),
    ("standard input, output and error are closed", "fine-tuning"),
    ("no space left on the disk", "export"),
    ("the workdir vanishes", "fine-tuning"),
    ("two runs in one workdir", "search"),
    ("the newest checkpoint is damaged", "training"),
    ("a path with spaces, quotes, `%` and other scripts", "fine-tuning"),
]


@pytest.mark.parametrize(("name", "stage"), FEW)
def test_a_fault_of_what_is_around(undisturbed, tmp_path, name, stage):
    try:
        places.CASES[name][stage](undisturbed[0], tmp_path, random.Random(0))
    except NotImplementedError as error:
        pytest.skip(str(error))
