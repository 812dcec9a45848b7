"""What a run logs, read back as JSON and by TensorBoard."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ofa_jax.run.metrics import MetricsLog


def told_to_tensorboard(workdir, name):
    """(step, value) of one figure."""
    board = EventAccumulator(str(workdir / "tb")).Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def log_steps(workdir, after, until, loss):
    with MetricsLog(workdir, after) as log:
        for step in range(after + 1, until + 1):
            log.write(step, {"loss": loss * step, "accuracy": 0.5}, "full", "train")


def test_a_resumed_run_replaces_what_it_does_again(tmp_path):
    log_steps(tmp_path, 0, 5, 1.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "pha')  # killed while it wrote
    log_steps(tmp_path, 3, 6, 10.0)
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == expected
    assert {(row["phase"], row["group"], row["accuracy"]) for row in rows} == {
        ("full", "train", 0.5)
    }
    assert told_to_tensorboard(tmp_path, "train/loss") == expected
    assert told_to_tensorboard(tmp_path, "train/accuracy") == [(i, 0.5) for i in range(1, 7)]


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with MetricsLog(None, 0) as log:
        log.write(1, {"loss": 1.0}, "full", "train")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported():
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            self.write("")

    log = MetricsLog(None, 0)
    log._file, log._path = Full(), "metrics.jsonl"
    with pytest.raises(OSError, match="metrics.jsonl could not be written: No space left"), log:
        log.write(1, {"loss": 1.0}, "full", "train")


def test_only_what_is_done_again_is_cut_off(tmp_path):
    log_steps(tmp_path, 0, 4, 1.0)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(True)
    for damage, expected in (
        ("", whole),
        ("".join(lines[3:])[:-1], "".join(lines[:3])),  # all of it but the end of the line
        ("damaged\n" + lines[3], whole),
    ):
        path.write_text("".join(lines[:3]) + damage if damage else whole)
        with MetricsLog(tmp_path, 4):
            pass
        assert path.read_text() == expected
