"""Faults of what surrounds a run: streams, disks, directories, limits and the environment.

Each case takes an `Undisturbed` run and an empty directory, and raises where something is lost,
where the user gets more or less than one line, or where the bits differ at the end.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from faults.running import (
    STAGES,
    Main,
    check_same,
    cut_short,
    finished,
    wait_until,
    whole_job,
)
from faults.stops import check_damage_told, damage
from main_runs import REPOSITORY

GONE = r"standard output is gone \((.*)\): the run continues without it"


class Undisturbed(NamedTuple):
    """A finished run, and what it made."""

    workdir: Path
    expected: dict

    def at(self, stage, directory):
        """A copy of it as it was when a stage began."""
        return cut_short(self.workdir, directory / "run", stage)

    def check(self, workdir):
        check_same(workdir, self.expected)


def check_error(end, *patterns):
    """It ended with code 2 and one line, which matches one of the patterns."""
    assert end.code == 2, end
    assert len(end.error) == 1, end
    assert any(re.fullmatch(f"error: {pattern}", end.error[0]) for pattern in patterns), end
    assert len(end.error[0]) < 400, end


# -- streams ---------------------------------------------------------------------------------------


def head(undisturbed, directory, rng):
    """`| head -1`: the reader is gone after a line, and the run continues."""
    workdir = undisturbed.at("fine-tuning", directory)
    end = whole_job(workdir, shell='"$@" | head -1').wait()
    assert (end.code, len(end.out), len(end.error)) == (0, 1, 1), end
    assert re.fullmatch(GONE, end.error[0])[1] == "Broken pipe", end
    undisturbed.check(workdir)


def full_output(undisturbed, directory, rng):
    """`> /dev/full`."""
    workdir = undisturbed.at("export", directory)
    end = whole_job(workdir, shell='exec "$@" > /dev/full').wait()
    assert (end.code, end.out, len(end.error)) == (0, [], 1), end
    assert re.fullmatch(GONE, end.error[0])[1] == "No space left on device", end
    undisturbed.check(workdir)


def full_streams(undisturbed, directory, rng):
    """`> /dev/full 2>&1`: no message can be written, and the exit codes stay."""
    workdir = undisturbed.at("export", directory)
    both = 'exec "$@" > /dev/full 2>&1'
    assert whole_job(workdir, shell=both).wait() == (0, [], [])
    undisturbed.check(workdir)
    assert whole_job(workdir, "--config.seed=5", shell=both).wait() == (2, [], [])


def closed_streams(undisturbed, directory, rng):
    """`<&- >&- 2>&-`: no file of the run takes a stream's place."""
    workdir = undisturbed.at("fine-tuning", directory)
    closed = 'exec "$@" <&- >&- 2>&-'
    assert whole_job(workdir, shell=closed).wait() == (0, [], [])
    undisturbed.check(workdir)


# -- disks and directories -------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(place, megabytes=64):
    """A file system of its own; it takes the right to mount one."""
    place.mkdir()
    size = f"size={megabytes}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise NotImplementedError("no file system may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk, left):
    """Fills a disk up to some pages; the file that does."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free.f_bavail - left, 1) * free.f_frsize)
    return filler


FULL = (
    r"workdir .* cannot be written: .*No space left on device",
    r".* could not be written.*: .*No space left on device.*",
    r"no space left for a checkpoint in .*: .* MB are needed, .* MB free; those before.* whole",
)


def full_disk(undisturbed, directory, rng, stage, left=None):
    """No space left in a stage; with space again, the same command resumes."""
    with small_disk(directory / "disk") as disk:
        workdir = undisturbed.at(stage, disk)
        filler = fill(disk, rng.randint(2, 20) if left is None else left)
        check_error(whole_job(workdir).wait(), *FULL)
        filler.unlink()
        finished(workdir)
        undisturbed.check(workdir)


def full_cache(undisturbed, directory, rng):
    """No space left for compiled programs, and one of them cut in half."""
    with small_disk(directory / "disk") as disk:
        cached = {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": str(disk)}
        in_environment(undisturbed, directory / "1", rng, "export", **cached)
        for path in (disk / "ofa_jax").glob("jit_apply-*"):
            os.truncate(path, path.stat().st_size // 2)
        for path in (disk / "ofa_jax").glob("jit_call-*"):
            path.unlink()
        fill(disk, 0)
        in_environment(undisturbed, directory / "2", rng, "export", **cached)


def read_only(undisturbed, directory, rng):
    """A workdir that nobody may write, at every stage, and a file in its place."""
    for stage in ("training", "export"):
        workdir = undisturbed.at(stage, directory / stage)
        mount = ("mount", "--bind", workdir, workdir)
        subprocess.run(mount, check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", workdir], check=True)
            wanted = r"workdir .* cannot be written: Read-only file system"
            check_error(whole_job(workdir).wait(), wanted)
        finally:
            subprocess.run(["umount", "--lazy", workdir], check=True)
    finished(workdir)
    undisturbed.check(workdir)
    file = directory / "file"
    file.touch()
    check_error(whole_job(file / "run").wait(), r"workdir .* cannot be written: Not a directory")


def vanished(undisturbed, directory, rng, stage):
    """The workdir is moved away while a stage runs; moved back, the same command resumes."""
    workdir = undisturbed.at(stage, directory)
    run = whole_job(workdir)
    assert wait_until(run, lambda: len(run.out) > 1)
    aside = workdir.rename(directory / "aside")
    check_error(run.wait(), r"workdir .* has vanished: .*")
    left = sorted(str(p.relative_to(directory)) for p in directory.glob("run/**/*"))
    assert not [name for name in left if not name.startswith("run/checkpoints")], left
    shutil.rmtree(workdir, ignore_errors=True)
    aside.rename(workdir)
    finished(workdir)
    undisturbed.check(workdir)


def two_at_once(undisturbed, directory, rng, stage):
    """A second run of the same command is refused, and the first one is not disturbed."""
    workdir = undisturbed.at(stage, directory)
    run = whole_job(workdir)
    assert wait_until(run, lambda: run.out)
    second = whole_job(workdir).wait()
    check_error(second, rf".* is in use by another run, process {run.process.pid}")
    end = run.wait()
    assert (end.code, end.error) == (0, []), end
    undisturbed.check(workdir)


def damaged(undisturbed, directory, rng):
    """The newest checkpoint is damaged: it is named, and the one before it used."""
    workdir = undisturbed.at("training", directory)
    newest, _ = damage(workdir, rng)
    check_damage_told(finished(workdir), newest)
    undisturbed.check(workdir)


# -- limits and the environment --------------------------------------------------------------------


def odd_path(undisturbed, directory, rng):
    """Spaces, quotes, `%` and other scripts in the path; the proposed next command runs."""
    place = directory / 'it\'s 100% "odd" %41 #1? $HOME ünï 手机'
    place.mkdir()
    workdir = undisturbed.at("fine-tuning", place)
    end = finished(workdir)
    undisturbed.check(workdir)
    images = place / "photos"
    images.mkdir()
    shutil.copy(Path(__file__).parents[2] / "docs/front.png", images / "手机.png")
    command = next_command(end).replace("main.py", str(REPOSITORY / "main.py"), 1)
    pasted = Main(shell=command.replace("*.jpg", "*.png"), cwd=place).wait()
    assert (pasted.code, len(pasted.out), pasted.error) == (0, 1, []), pasted


def next_command(end):
    """The command that a run tells, for the Python of this one."""
    line = next(line for line in end.out if line.startswith("next: python "))
    return line.replace("next: python", sys.executable, 1)


def elsewhere(undisturbed, directory, rng):
    """Started from another directory, by relative paths; the proposed next command runs."""
    undisturbed.at("search", directory)
    config = f"--config={os.path.relpath(REPOSITORY / 'configs/smoke.py', directory)}"
    end = Main(config, "--workdir=run", "--mode=search", cwd=directory).wait()
    assert (end.code, end.error) == (0, []), end
    shutil.rmtree(directory / "run/subnets")
    pasted = Main(shell=next_command(end), cwd=directory).wait()
    assert (pasted.code, pasted.error) == (0, []), pasted
    end = Main(config, "--workdir=run", cwd=directory).wait()
    assert (end.code, end.error) == (0, []), end
    undisturbed.check(directory / "run")


def in_environment(undisturbed, directory, rng, stage, shell='exec "$@"', **environment):
    """The rest of a run in another environment."""
    workdir = undisturbed.at(stage, directory)
    finished(workdir, shell=shell, **environment)
    undisturbed.check(workdir)


def no_home(undisturbed, directory, rng):
    """No writable home, and none at all: nothing may depend on a cache."""
    (directory / "file").touch()
    nowhere = {"XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None, "MPLCONFIGDIR": None}
    in_environment(undisturbed, directory, rng, "search", HOME=str(directory / "file"), **nowhere)
    shutil.rmtree(directory / "run")
    in_environment(undisturbed, directory, rng, "export", HOME=None, **nowhere,
                   JAX_COMPILATION_CACHE_DIR=None)  # fmt: skip


ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def ascii_locale(undisturbed, directory, rng):
    """LANG=C, as Python takes it at a path beyond ASCII, and in earnest."""
    place = directory / "ünï 手机"
    place.mkdir()
    in_environment(undisturbed, place, rng, "export", LC_ALL="C", LANG="C")
    check_error(
        whole_job(place / "run", **ASCII).wait(),
        r"--workdir='.*: expected a path in UTF-8, on one line; .*PYTHONUTF8=1.*",
    )
    in_environment(undisturbed, directory, rng, "export", **ASCII)


def few_files(undisturbed, directory, rng):
    """`ulimit -n` of 256 and 64."""
    for count in (256, 64):
        limited = f'ulimit -n {count}; exec "$@"'
        in_environment(undisturbed, directory / str(count), rng, "fine-tuning", limited)


def optimized(undisturbed, directory, rng):
    """PYTHONOPTIMIZE=2: no assert carries logic, no docstring is needed."""
    in_environment(undisturbed, directory, rng, "search", PYTHONOPTIMIZE="2")
    end = Main(shell=f"exec {sys.executable} main.py", PYTHONOPTIMIZE="2").wait()
    assert end.code == 0, end
    assert any("--workdir" in line for line in end.out), end


def odd_time_zones(undisturbed, directory, rng):
    """TZ that no other place has, and one that is none."""
    for index, zone in enumerate(("Asia/Kathmandu", "Nowhere/Land")):
        in_environment(undisturbed, directory / str(index), rng, "export", TZ=zone)


# -- all of them -----------------------------------------------------------------------------------


def at_each(case, stages=STAGES):
    """A case, begun at each of these stages."""

    def at(stage):
        return lambda undisturbed, directory, rng: case(undisturbed, directory, rng, stage)

    return {stage: at(stage) for stage in stages}


# By what happens to a run, and the stage that it is begun in; it then goes to the end.
CASES = {
    "standard output has no reader any more, `head -1`": {"fine-tuning": head},
    "standard output is `/dev/full`": {"export": full_output},
    "standard output and error are `/dev/full`": {"export": full_streams},
    "standard input, output and error are closed": {"fine-tuning": closed_streams},
    "no space left on the disk": at_each(full_disk),
    "no space left for compiled programs, one is damaged": {"export": full_cache},
    "a read-only workdir, a file in its place": {"training, export": read_only},
    "the workdir vanishes": at_each(vanished, ("training", "search", "fine-tuning")),
    "two runs in one workdir": at_each(two_at_once, ("search",)),
    "the newest checkpoint is damaged": {"training": damaged},
    "a path with spaces, quotes, `%` and other scripts": {"fine-tuning": odd_path},
    "started from another directory": {"search": elsewhere},
    "no writable home, no home": {"search, export": no_home},
    "`LC_ALL=C`, also without Python's UTF-8": {"export": ascii_locale},
    "`ulimit -n` of 256 and 64": {"fine-tuning": few_files},
    "`PYTHONOPTIMIZE=2`": {"search": optimized},
    "odd and unknown time zones": {"export": odd_time_zones},
}
