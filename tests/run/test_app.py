"""The command: how it is started, what it says is next, and how it ends."""

import json
import logging
import os
import subprocess
import sys

import pytest
from main_runs import REPOSITORY, run

from ofa_jax.run import app

# One process for all cases, as the imports are most of their time: a fork for each.
FORKS = """
import json, os, sys, tempfile
from ofa_jax.errors import InputError
from ofa_jax.run import app
for argv, error in json.load(sys.stdin):
    outs = [tempfile.TemporaryFile("w+") for _ in range(2)]
    child = os.fork()
    if not child:
        for number, out in enumerate(outs, start=1):
            os.dup2(out.fileno(), number)
        def read_config(_):
            raise eval(error)
        app.read_config, sys.argv = read_config, argv
        app.start()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, *(out.seek(0) or out.read() for out in outs)]))
"""
EVALUATE = ["main.py", "--mode=evaluate", "--workdir=none"]
MENDABLE = (
    'InputError("seed=-1")', 'FloatingPointError("loss is nan")', 'OSError("no space left")'
)  # fmt: skip
MISTAKES = ('ValueError("shapes (3,) and (4,)")', 'TypeError("got an unexpected keyword")')


def ends(cases):
    """Exit code, stdout and stderr of each command line, where its config raises that error."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        cwd=REPOSITORY,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_a_user_can_mend_is_one_line_and_a_mistake_of_ours_a_traceback():
    found = ends([[EVALUATE, error] for error in (*MENDABLE, *MISTAKES)])
    for error, (code, _, printed) in zip((*MENDABLE, *MISTAKES), found, strict=True):
        kind, message, _ = error.split('"')
        if error in MENDABLE:
            assert (code, printed) == (2, f"error: {message}\n")
        else:
            assert code == 1
            assert printed.startswith("Traceback")
            assert printed.endswith(f"{kind.removesuffix('(')}: {message}\n")


def test_a_warning_of_another_library_is_there_once():
    warned = '[__import__("logging").getLogger("grain").warning("slow"), InputError("x")][1]'
    [(code, _, printed)] = ends([[EVALUATE, warned]])
    assert code == 2
    warning, error = printed.splitlines()
    assert warning.startswith("W")
    assert warning.endswith("] slow")
    assert error == "error: x"


@pytest.mark.parametrize("platform", ["wrong", "cuda"])
def test_devices_that_are_not_here_are_one_line(platform):
    code, out, error = run("--mode=evaluate", "--workdir=none", JAX_PLATFORMS=platform)
    assert (code, out) == (2, "")
    assert error.splitlines()[-1].startswith(
        f"error: JAX finds no device with JAX_PLATFORMS={platform!r}: "
    )
    assert "Traceback" not in error


def test_random_numbers_are_the_seeds_whatever_the_environment_says():
    """Else the same command would resume another run."""
    code = (
        "import jax; from ofa_jax.run import app; app.fix_random_numbers();"
        " print(jax.random.bits(jax.random.key(3), (2,)))"
    )
    odd = {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_RANDOM_SEED_OFFSET": "5",
           "JAX_THREEFRY_PARTITIONABLE": "false"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, **odd},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "[ 318053758 4029299397]\n"


def test_help_names_the_command_as_it_was_started():
    started = {"main.py": "python main.py", "/usr/bin/ofa-jax": "ofa-jax"}
    found = ends([[[script, "--help"], ""] for script in started])
    for (code, printed, _), command in zip(found, started.values(), strict=True):
        assert code == 0
        assert f"\n    {command} --config=configs/digits.py --workdir=runs/digits\n" in printed


def test_what_is_next_names_the_command_as_it_was_started(monkeypatch):
    for script, command in (
        ("main.py", "python main.py"),
        ("../my runs/main.py", "python '../my runs/main.py'"),
        ("/usr/local/bin/ofa-jax", "ofa-jax"),
    ):
        monkeypatch.setattr(sys, "argv", [script])
        assert app.command() == command


def test_warnings_are_shown_and_errors_that_orbax_and_gcsfs_raise_too_are_not():
    def shown(path, level, name="absl"):
        return app.is_news(logging.LogRecord(name, level, path, 1, "disk full", (), None))

    saving = "/lib/orbax/checkpoint/_src/futures/future.py"
    assert shown(saving, logging.WARNING)
    assert not shown(saving, logging.ERROR)
    assert not shown(saving, logging.CRITICAL)
    assert shown("/lib/grain/_src/python/data_loader.py", logging.ERROR)
    assert shown("/lib/gcsfs/extended_gcsfs.py", logging.WARNING, "gcsfs")
    assert not shown("/lib/gcsfs/retry.py", logging.ERROR, "gcsfs")


def test_where_matplotlib_keeps_its_caches_without_a_home_is_no_news(tmp_path):
    (tmp_path / "file").touch()
    program = """
import logging
from ofa_jax.run import app
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger().addHandler(handler)
import matplotlib.figure
assert len(records) >= 2, records
assert not any(map(app.is_news, records)), records
"""
    environment = {**os.environ, "HOME": str(tmp_path / "file")}
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    command = [sys.executable, "-W", "ignore", "-c", program]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True)
