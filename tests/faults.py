"""Kills runs of configs/smoke.py at random moments, damages their checkpoints, and compares bits.

    PYTHONPATH=.:tests python tests/faults.py --kills=20 --damages=10

Every run is restarted by the same command until it is done; its final parameters must be those of
an undisturbed run, bit for bit, and it must have gone on from the newest whole checkpoint. About
two minutes a run on two CPU cores.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from random_nets import identical

import ofa_jax
from ofa_jax.checkpoint import SEAL

REPOSITORY = Path(__file__).parents[1]
STEPS = 171


def start(workdir):
    """The main job, only its training, as a process of its own."""
    flags = ["--config=configs/smoke.py", f"--workdir={workdir}", "--mode=train"]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "main.py", *flags],
        cwd=REPOSITORY,
        env={**os.environ, **cache},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process, seconds=600):
    """Waits for the end of a run; returns what it printed."""
    out, error = process.communicate(timeout=seconds)
    assert process.returncode == 0, error
    return out


def killed_after(workdir, seconds):
    """A run killed after so many seconds, or finished by then; returns what it printed."""
    process = start(workdir)
    try:
        return finish(process, seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def killed_in_a_save(workdir, saves):
    """A run killed while it writes its `saves`-th checkpoint from now, or finished by then."""
    process, seen = start(workdir), set()
    while process.poll() is None:
        seen |= set((workdir / "checkpoints").glob("*/*tmp*"))
        if len(seen) >= saves:
            process.kill()
        time.sleep(0.002)
    return process.communicate()[0]


def newest_whole(workdir):
    """The largest step with a sealed checkpoint, or 0."""
    seals = (workdir / "checkpoints").glob(f"*/*/{SEAL}")
    return max((int(seal.parent.name) for seal in seals), default=0)


def damage(workdir, rng):
    """Flips a bit of a file in the newest whole checkpoint, or cuts it; returns which and how."""
    newest = newest_whole(workdir)
    (directory,) = (workdir / "checkpoints").glob(f"*/{newest}")
    files = [p for p in directory.rglob("*") if p.is_file() and p.name != SEAL]
    victim = rng.choice([p for p in files if p.stat().st_size])
    data = bytearray(victim.read_bytes())
    if rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        how = "a bit flipped"
    else:
        data = data[: rng.randrange(len(data))]
        how = "truncated"
    victim.write_bytes(data)
    return f"{victim.relative_to(workdir / 'checkpoints')} {how}", newest


def check_resumed(out, newest):
    """The run went on from the newest whole checkpoint: nothing else was lost."""
    resumed = re.search(rf"resumed phase '\w+' at step (\d+) of {STEPS}", out)
    found = int(resumed[1]) if resumed else 0
    assert found == newest or "training is complete" in out, (found, newest, out)


def check_result(workdir, expected):
    """The final parameters are the undisturbed run's; each step was logged once."""
    _, _, variables = ofa_jax.load_supernet(workdir / "supernet")
    assert identical(variables, expected)
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if r["group"] == "train"] == list(range(1, STEPS + 1))


def kill_run(workdir, seconds, rng):
    """One to three kills, then the end; returns what happened."""
    story = []
    for _ in range(rng.randint(1, 3)):
        before = newest_whole(workdir)
        if rng.random() < 0.5:
            out = killed_in_a_save(workdir, rng.randint(1, 12))
        else:
            out = killed_after(workdir, rng.uniform(0, 1) * seconds)
        if "resumed" in out:
            check_resumed(out, before)
        story.append(f"killed, whole until step {newest_whole(workdir)}")
    before = newest_whole(workdir)
    check_resumed(finish(start(workdir)), before)
    return ", ".join(story)


def damage_run(workdir, seconds, rng):
    """A kill, damage to the newest checkpoint, then the end; returns what happened."""
    while newest_whole(workdir) < 20:
        killed_in_a_save(workdir, rng.randint(4, 16))
    what, damaged = damage(workdir, rng)
    out = finish(start(workdir))
    assert f"/{damaged} cannot be read" in out, out
    assert "the one before it is used" in out, out
    resumed = re.search(r"resumed phase '\w+' at step (\d+)", out)
    assert 0 < int(resumed[1]) < damaged, out
    return f"{what}; resumed at step {resumed[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--damages", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        finish(start(directory / "compiling"))
        began = time.monotonic()
        finish(start(directory / "undisturbed"))
        seconds = time.monotonic() - began
        _, _, expected = ofa_jax.load_supernet(directory / "undisturbed" / "supernet")
        print(f"an undisturbed run takes {seconds:.0f} s", flush=True)
        for kind, count, run in (
            ("kill", arguments.kills, kill_run),
            ("damage", arguments.damages, damage_run),
        ):
            for index in range(count):
                workdir = directory / f"{kind}{index}"
                story = run(workdir, seconds, random.Random(f"{arguments.seed}{kind}{index}"))
                check_result(workdir, expected)
                print(f"{kind} {index + 1} of {count}: {story}; the same bits", flush=True)


if __name__ == "__main__":
    main()
