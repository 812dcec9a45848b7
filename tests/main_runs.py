"""main.py as a process of its own, as a user runs it."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.groups.data import DataConfig

REPOSITORY = Path(__file__).parents[1]
# Seconds until a process counts as hung, on any machine: no verdict waits for less.
SAFETY = 3600
SMOKE, SMALL = "--config=configs/smoke.py", "--config=tests/small_run.py"


def share_compiled():
    """Has all runs of a test session, in all its workers, compile each program once.

    To be called before workers start. Not kept for the next session: a killed run may leave half
    of a file there.
    """
    if "OFA_JAX_COMPILED" not in os.environ:
        directory = tempfile.mkdtemp(prefix="ofa_jax-compiled-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.environ["OFA_JAX_COMPILED"] = directory


def restore_signals():
    """Has runs react to Ctrl-C and SIGHUP, which `&` in a script and `nohup` have them ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # this process continues


def compiled_environment():
    """The environment variables with which a process shares what is compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": os.environ["OFA_JAX_COMPILED"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(*flags, **environment):
    """Starts main.py; environment variables by their names."""
    return subprocess.Popen(
        [sys.executable, "main.py", *map(str, flags)],
        cwd=REPOSITORY,
        env={**os.environ, **compiled_environment(), **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process):
    """Waits for the end; returns exit code, stdout and stderr."""
    out, error = process.communicate(timeout=SAFETY)
    return process.returncode, out, error


def run(*flags, **environment):
    """Runs main.py; returns exit code, stdout and stderr."""
    return finish(start(*flags, **environment))


FORKS = """
import json, os, sys, tempfile
import main
for flags in json.load(sys.stdin):
    outs = [tempfile.TemporaryFile("w+") for _ in range(2)]
    child = os.fork()
    if not child:
        for number, out in enumerate(outs, start=1):
            os.dup2(out.fileno(), number)
        sys.argv = ["main.py", *flags]
        main.start()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [out.seek(0) or out.read() for out in outs]
    print(json.dumps([code, *texts]))
"""


def run_forks(commands):
    """`run` for many short commands: the imports, which take most of their time, are done once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        cwd=REPOSITORY,
        env={**os.environ, **compiled_environment()},
        input=json.dumps([list(map(str, flags)) for flags in commands]),
        text=True,
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for(process, path, lines):
    """Waits until a file has so many lines, while the process runs."""
    while not path.exists() or path.read_text().count("\n") < lines:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def write_digits(directory, count=3, suffix=".png"):
    """Some of the real test images as files, named by their class."""
    directory.mkdir()
    digits = load_dataset(DataConfig())
    for i in range(count):
        example = digits.test[i]
        name = f"{i}_{example['label']}{suffix}"
        Image.fromarray(example["image"][..., 0]).save(directory / name)


def write_folder(root):
    """The training images as a folder of images by class, as a user brings it."""
    for i, example in enumerate(load_dataset(DataConfig()).train):
        directory = root / f"bird{example['label']}"
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example["image"][..., 0]).save(directory / f"{i:04}.png")
