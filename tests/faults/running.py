"""Runs of configs/smoke.py as a user starts them: how far they are, and what they leave behind."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import jax
import numpy as np
from main_runs import REPOSITORY, SAFETY, SMOKE, compiled_environment

import ofa_jax
from ofa_jax.files import read_arrays, read_json
from ofa_jax.run.card import read_card
from ofa_jax.run.card_writer import write_card
from ofa_jax.run.export import forget

STAGES = ("training", "evaluation", "search", "extraction", "fine-tuning", "export")
DONE = "the end"


class End(NamedTuple):
    """How a process ended: its exit code, and the lines it printed."""

    code: int
    out: list[str]
    error: list[str]


class Main:
    """main.py as a process of its own, in a session of its own; what it prints is kept.

    Args:
      flags: of main.py.
      shell: a command line to start it by, in which it is "$@".
      cwd: where it is started from.
      environment: variables by name; None leaves one out.
    """

    def __init__(self, *flags, shell='exec "$@"', cwd=REPOSITORY, **environment):
        wanted = {**os.environ, **compiled_environment(), "PYTHONPATH": str(REPOSITORY)}
        wanted.update(environment)
        command = [sys.executable, os.path.relpath(REPOSITORY / "main.py", cwd), *map(str, flags)]
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {shell}", "bash", *command],
            cwd=cwd,
            env={name: value for name, value in wanted.items() if value is not None},
            text=True,
            errors="replace",
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.out = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.out.extend(line.rstrip("\n") for line in self.process.stdout)

    def running(self):
        return self.process.poll() is None

    def wait(self):
        code = self.process.wait(SAFETY)
        self._reader.join()
        self.process.stdout.close()
        if not self._errors.closed:
            self._errors.seek(0)
            self._told = self._errors.read().splitlines()
            self._errors.close()
        return End(code, self.out, self._told)


def whole_job(workdir, *flags, **how):
    """The command that does everything, started."""
    return Main(SMOKE, f"--workdir={workdir}", *flags, **how)


def finished(workdir, *flags, **how):
    """The same command, run to its end: it must succeed and write nothing to standard error."""
    end = whole_job(workdir, *flags, **how).wait()
    assert end.code == 0, end
    assert not end.error, end
    return end


def wait_until(run, happened):
    """Waits for something that a run does; False if it ended without."""
    while not happened():
        if not run.running():
            return happened()
        time.sleep(0.005)
    return True


# -- how far a run is ------------------------------------------------------------------------------


def stage_of(workdir):
    """The first stage that is not done, by the files that each one writes last."""
    cards = {path.parent.name for path in (workdir / "subnets").glob("[!.]*/card.json")}
    tuned = [name for name in cards if name.endswith("-finetuned")]
    done = (
        (workdir / "supernet").is_dir(),
        (workdir / "evaluation.json").is_file(),
        (workdir / "search/found.json").is_file(),
        len(cards) >= 2,
        bool(tuned),
        bool(tuned) and (workdir / "subnets" / tuned[0] / "model.stablehlo").is_file(),
    )
    return next((stage for stage, is_done in zip(STAGES, done, strict=True) if not is_done), DONE)


def seconds_of_stages(run, workdir):
    """Watches a run to its end: how long it was in each stage, from its first line on."""
    wait_until(run, lambda: run.out)
    seconds, began = {}, time.monotonic()
    for stage in STAGES:
        wait_until(run, lambda stage=stage: stage_of(workdir) != stage)
        seconds[stage] = time.monotonic() - began
        began = time.monotonic()
    return seconds


def cut_short(undisturbed, workdir, stage):
    """A copy of a finished run as it was when a stage began; training is then in its last phase."""
    shutil.copytree(undisturbed, workdir)
    (tuned,) = (workdir / "subnets").glob("*-finetuned")
    made = {
        "training": [workdir / "checkpoints/expand2", workdir / "supernet"],
        "evaluation": [workdir / "evaluation.json"],
        "search": [workdir / "search"],
        "extraction": [p for p in (workdir / "subnets").iterdir() if p != tuned],
        "fine-tuning": [tuned, workdir / "finetune"],
    }
    if stage == "export":
        write_card(tuned, forget(read_card(tuned), "stablehlo"), [])
        (tuned / "model.stablehlo").unlink()
    for later in STAGES[STAGES.index(stage) : -1]:
        for path in made[later]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return workdir


# -- what it leaves --------------------------------------------------------------------------------


def made_by(workdir):
    """What a run has made, as checksums by name: all but times, speeds and storage layout."""
    made = {}
    for name in ("evaluation.json", "search/found.json", "search/front.json", "search/front.png",
                 "search/measured.jsonl"):  # fmt: skip
        made[name] = hashlib.sha256((workdir / name).read_bytes()).hexdigest()
    made["supernet"] = of_tree(ofa_jax.load_supernet(workdir / "supernet")[2])
    made["predictor"] = of_tree(read_arrays(workdir / "search/predictor.npz"))
    for directory in sorted((workdir / "subnets").iterdir()):
        name = f"subnets/{directory.name}"
        card = read_card(directory)
        made[name] = of_tree(ofa_jax.load_subnet(directory)[1])
        made[f"{name}/card"] = of_card(directory)
        for export in card.exports.values():
            made[f"{name}/{export.file}"] = card.files[export.file]
    made["metrics"] = of_metrics(workdir / "metrics.jsonl")
    return made


def of_tree(tree):
    """Checksum of a tree's arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def of_card(directory):
    """Checksum of a card but for its time and the files' checksums, which storage decides."""
    card = read_json(directory / "card.json")
    kept = {key: value for key, value in card.items() if key not in ("created", "files")}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def of_metrics(path):
    """Checksum of each step's and each phase's figures, which must be there once, in order."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [(row["group"], row["step"], row["phase"],
             {key: value for key, value in row.items() if key != "time"})
            for row in rows if row["group"] in ("train", "held_out")]  # fmt: skip
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def check_same(workdir, expected):
    """What a run has made is what an undisturbed one did, to the bit."""
    made = made_by(workdir)
    different = [key for key in {*made, *expected} if made.get(key) != expected.get(key)]
    assert not different, different
