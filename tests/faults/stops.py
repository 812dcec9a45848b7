"""A run that is stopped again and again, by a kill or a signal, at random moments of its stages."""

import os
import re
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from faults.running import (
    DONE,
    STAGES,
    check_same,
    finished,
    stage_of,
    wait_until,
    whole_job,
)

from ofa_jax.checkpoint import SEAL

KILL, TERM, HUP, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT
SIGNALS = {
    "SIGKILL": (KILL,),
    "SIGTERM": (TERM,),
    "SIGTERM twice": (TERM, TERM),
    "SIGHUP": (HUP,),
    "Ctrl-C": (INT,),
    "Ctrl-C twice": (INT, INT),
}
CODES = {KILL: -9, TERM: 75, HUP: 75, INT: 130}
LINE = re.compile(
    r"(interrupted|stopped by SIG(TERM|HUP)( and saved, phase '\w+' at step \d+)?)"
    r": the same command resumes"
)


def stop(run, how, rng):
    """Sends the signals of `how`: Ctrl-C to all its processes, as a terminal does."""
    for number in SIGNALS[how]:
        if number == INT:
            os.killpg(run.process.pid, number)
        elif run.running():
            run.process.send_signal(number)
        time.sleep(rng.uniform(0, 0.3))


def stopped(workdir, stage, how, seconds, rng):
    """Stops a run at a random moment from a stage's begin on; the stage it was in, or None."""
    newest = newest_whole(workdir)
    run = whole_job(workdir)
    wait_until(run, lambda: run.out and stage_of(workdir) in (*later(stage), DONE))
    time.sleep(rng.uniform(0, seconds[stage]))
    found = stage_of(workdir)
    stop(run, how, rng)
    end = run.wait()
    check_resumed(end, newest)
    if end.code == 0:
        return None  # it was faster
    check_end(end, how)
    return found


def later(stage):
    return STAGES[STAGES.index(stage) :]


def check_end(end, how):
    """It ended as main.py documents: one line that says what to do, nothing after a kill."""
    assert end.code == CODES[SIGNALS[how][0]], (how, end)
    if how == "SIGKILL":
        assert not end.error, end
        return
    assert len(end.error) == 1, (how, end)
    assert LINE.fullmatch(end.error[0]), (how, end)


def newest_whole(workdir):
    """The largest step of training with a sealed checkpoint, or 0."""
    seals = (workdir / "checkpoints").glob(f"*/*/{SEAL}")
    return max((int(seal.parent.name) for seal in seals), default=0)


def check_resumed(end, newest):
    """It resumed from the newest intact checkpoint: nothing else was lost."""
    resumed = re.search(r"resumed phase '\w+' at step (\d+)", "\n".join(end.out))
    assert not resumed or int(resumed[1]) == newest, (newest, end)


def plans(hows, rng):
    """The stops of some runs, each at most once in a stage, all stages alike often."""
    runs = []
    for index, how in enumerate(hows):
        if index % len(STAGES) == 0:
            runs.append([])
            order = rng.sample(STAGES, len(STAGES))
        runs[-1].append((order[index % len(STAGES)], how))
    return [sorted(run, key=lambda pair: STAGES.index(pair[0])) for run in runs]


def new_workdir(directory):
    return Path(tempfile.mkdtemp(dir=directory)) / "run"


def stop_runs(hows, directory, expected, seconds, rng):
    """Stops runs in all of these ways, then lets each one finish; counts by how and stage."""
    counts = Counter()
    for plan in plans(hows, rng):
        workdir = new_workdir(directory)
        for stage, how in plan:
            for _ in range(6):
                if found := stopped(workdir, stage, how, seconds, rng):
                    break
                print(f"{how} for {stage}: it was done before", flush=True)
                check_same(workdir, expected)
                workdir, seconds[stage] = new_workdir(directory), seconds[stage] / 2
            assert found, f"{how} never came before the end"
            counts[how, found] += 1
            print(f"{how} for {stage}: in {found}", flush=True)
        newest = newest_whole(workdir)
        check_resumed(finished(workdir), newest)
        check_same(workdir, expected)
        print("the same bits", flush=True)
    return counts


# -- and one whose newest checkpoint is damaged ---------------------------------------------------


def damage(workdir, rng):
    """Flips a bit of a file in the newest whole checkpoint, or cuts it; its step, and how."""
    newest = newest_whole(workdir)
    (directory,) = (workdir / "checkpoints").glob(f"*/{newest}")
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != SEAL)
    victim = rng.choice([p for p in files if p.stat().st_size])
    data = bytearray(victim.read_bytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        how = "a bit flipped"
    else:
        data = data[: rng.randrange(len(data))]
        how = "truncated"
    victim.write_bytes(data)
    return newest, how


def check_damage_told(end, damaged):
    """The damage was named, and an older checkpoint used."""
    out = "\n".join(end.out)
    assert f"/{damaged} cannot be read" in out, end
    assert "the one before it is used" in out, end
    resumed = re.search(r"resumed phase '\w+' at step (\d+)", out)
    assert 0 < int(resumed[1]) < damaged, end
