"""Two real processes on loopback: one run, one result, and one end, whatever happens to one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from main_runs import REPOSITORY, SAFETY, SMALL, finish, run, start, wait_for
from random_nets import identical

import ofa_jax
from ofa_jax.run import processes

# The teacher, long enough to be disturbed in, and everything elastic from sorted widths on.
TRAIN = (SMALL, "--mode=train", "--config.phases.full.epochs=10.0")


@pytest.fixture
def start_pair():
    """Starts two processes of one run; what still runs at the end of a test is killed."""
    started = []

    def start_both(workdir, *flags, second=()):
        run = (*TRAIN, f"--workdir={workdir}", f"--coordinator=localhost:{free_port()}")
        pair = [
            start(*run, "--processes=2", f"--process={i}", *flags, *(second if i else ()))
            for i in range(2)
        ]
        started.extend(pair)
        return pair

    yield start_both
    for process in started:
        process.kill()
        process.communicate()


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_whether_another_process_was_lost(monkeypatch):
    """The runtime says so itself, inside another error, or in its words alone."""
    hidden = TimeoutError("Timed out while waiting for async_commit_complete barrier.")
    hidden.__cause__ = jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out")
    in_words = ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:1429")
    others = (
        OSError(28, "No space left on device"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    )
    lost = [jax.errors.JaxRuntimeError("UNAVAILABLE: Task 1 has failed"), hidden, in_words]
    assert not any(map(processes.lost_another, (*lost, *others)))  # there is no other
    monkeypatch.setattr(processes, "several", lambda: True)
    assert all(map(processes.lost_another, lost))
    assert not any(map(processes.lost_another, others))


@pytest.mark.slow
def test_two_processes_train_what_two_devices_do_whatever_happens_to_them(tmp_path, start_pair):
    """Stopped, killed and hung, each time restarted: the same bits as one undisturbed process."""
    code, out, error = run(*TRAIN, f"--workdir={tmp_path / 'one'}", JAX_NUM_CPU_DEVICES="2")
    assert code == 0, error

    workdir = tmp_path / "two"
    often = ("--config.train.checkpoint_steps=3",)
    began = time.monotonic()
    first, second = start_pair(workdir, *often)
    wait_for(first, workdir / "metrics.jsonl", lines=5)
    limit = round(20 + 2 * (time.monotonic() - began))  # this machine hangs where it takes longer
    second.send_signal(signal.SIGTERM)  # to one of them
    ends = [finish(first), finish(second)]
    stopped = [
        re.search(r"saved, phase 'full' at step (\d+): the same command", e[2]) for e in ends
    ]
    assert [end[0] for end in ends] == [75, 75], ends
    assert all(stopped), ends
    assert stopped[0][1] == stopped[1][1]

    first, second = start_pair(workdir, *often)
    wait_for(first, workdir / "metrics.jsonl", lines=int(stopped[0][1]) + 3)
    second.kill()
    code, out, error = finish(first)
    assert f"resumed phase 'full' at step {stopped[0][1]} of 209" in out
    assert code == processes.LOST, error
    assert "process 0 of 2: error: a process was lost, or the network: " in error

    first, second = start_pair(workdir, *often, f"--config.parallel.timeout={limit}")
    wait_for(first, workdir / "metrics.jsonl", lines=int(stopped[0][1]) + 6)
    second.send_signal(signal.SIGSTOP)
    code, out, error = finish(first)
    assert code == processes.LOST, error
    assert re.search(
        rf"process 0 of 2: error: .* takes longer than parallel.timeout={limit} s", error
    )
    second.kill()

    first, second = start_pair(workdir)
    (code, out, error), (code2, out2, error2) = finish(first), finish(second)
    assert (code, code2) == (0, 0), error + error2
    assert "resumed phase" in out
    assert "phase" not in out2  # one of them speaks
    _, _, expected = ofa_jax.load_supernet(tmp_path / "one/supernet")
    _, _, found = ofa_jax.load_supernet(workdir / "supernet")
    assert identical(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.seed=5", "differ in their config: seed is 0 in process 0, 5 in process 1"),
        ("--config.phases.full.lr=-1.0", "lr=-1.0: expected 0 to 1,000"),
    ],
)
def test_different_configs_end_both(tmp_path, start_pair, flag, message):
    pair = start_pair(tmp_path / "run", second=(flag,))
    code, _, error = finish(pair[1])
    assert code == 2
    assert message in error
    if "differ" in message:
        code, _, error = finish(pair[0])
        assert code == 2
        assert message in error
    assert not (tmp_path / "run").exists()


CONNECT = """
from ofa_jax.run import processes
processes.connect("localhost:{port}", 2, {index}, timeout=2)
"""


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_whose_peer_does_not_come_ends(index):
    code = CONNECT.format(port=free_port(), index=index)
    alone = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True, timeout=SAFETY
    )
    assert alone.returncode == processes.LOST
    assert alone.stderr.startswith(
        "error: the other processes of this run did not connect at local"
    )
    assert len(alone.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", 2, -1), "--process=I go together"),
        (("", 2, 0), "--process=I go together"),
        (("localhost:1", 2, 2), "--process=2: expected 0 to 1"),
        (("localhost", 2, 0), "--coordinator='localhost': expected HOST:PORT"),
    ],
)
def test_wrong_addresses_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        processes.connect(*arguments)


def test_one_process_needs_no_others(monkeypatch):
    processes.connect()
    processes.connect("", 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    processes.connect()
    assert not processes.several()
    assert processes.gather({"a": [1]}) == [{"a": [1]}]
    assert processes.from_first(lambda: 3) == 3
    processes.check_same("anything", {"a": 1})
    with pytest.raises(OSError, match="mine"), processes.together():
        raise OSError("mine")
    assert jax.process_count() == 1


def test_a_variable_left_over_is_named(monkeypatch):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    message = r"--processes=1 runs alone, whatever SLURM_STEP_NUM_TASKS=2 says"
    with pytest.raises(ValueError, match=message):
        processes.connect()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "two")
    with pytest.raises(ValueError, match="SLURM_STEP_NUM_TASKS=two"):
        processes.connect()


SLURM = """
from ofa_jax.run import processes
processes.connect(timeout=3600)
print(processes.gather(7 * processes.jax.process_index()))
try:
    with processes.together():
        if not processes.is_first():
            raise ValueError("no data here")
except ValueError as error:
    print(error)
"""


def test_slurm_tells_who_is_there():
    job = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1",
    }  # fmt: skip
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", SLURM],
            cwd=REPOSITORY,
            env={**os.environ, **job, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]
    outs = [task.communicate(timeout=SAFETY) for task in tasks]
    assert outs[0][0].splitlines()[-2:] == ["[0, 7]", "process 1: no data here"], outs
    assert outs[1][0].splitlines()[-2:] == ["[0, 7]", "no data here"], outs
