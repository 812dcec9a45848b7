"""SIGTERM, SIGHUP and Ctrl-C: one line and a documented exit code."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest
from main_runs import SAFETY, restore_signals

from ofa_jax.run import processes, signals
from ofa_jax.run.preemption import stop_requests

NUMBERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture(autouse=True)
def handled(monkeypatch):
    """The signals are handled as in main.py; `os._exit` raises its code."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:  # a shell's background processes ignore Ctrl-C
        signal.signal(number, signal.SIG_DFL)
    for name in ("_ending", "_saying", "_again"):
        monkeypatch.setattr(signals, name, False)
    monkeypatch.setattr(signals, "GRACE", 1e6)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def ended(code):
        raise RuntimeError(f"at once: {code}")

    monkeypatch.setattr(os, "_exit", ended)
    signals.handle()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGTERM, 75, "stopped by SIGTERM: the same command resumes\n"),
        (signal.SIGHUP, 75, "stopped by SIGHUP: the same command resumes\n"),
        (signal.SIGINT, 130, "interrupted: the same command resumes\n"),
    ],
)
def test_a_signal_ends_with_one_line_and_its_code(number, code, line, capsys):
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(number)
    assert ended.value.code == code
    assert capsys.readouterr().err == line
    with pytest.raises(RuntimeError, match=f"at once: {code}"):  # a second one waits for nothing
        signal.raise_signal(number)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("second", NUMBERS)
def test_a_second_signal_does_not_cut_the_first_ones_line(second, monkeypatch, capsys):
    end = processes.end

    def interrupted(text, code):
        signal.raise_signal(second)  # before a character is printed
        end(text, code)

    monkeypatch.setattr(processes, "end", interrupted)
    with pytest.raises(RuntimeError, match="at once: 75"):
        signal.raise_signal(signal.SIGTERM)
    assert capsys.readouterr().err == "stopped by SIGTERM: the same command resumes\n"


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_left_by_a_signal_waits_for_no_thread(number, capsys):
    left = []
    with pytest.raises(RuntimeError, match="at once: (75|130)"), signals.ending_at_once():
        try:
            signal.raise_signal(number)
        finally:
            left.append("files")
    assert left == ["files"]
    with pytest.raises(SystemExit) as ended, signals.ending_at_once():
        raise SystemExit(2)
    assert ended.value.code == 2


class Collected:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_comes_where_exceptions_are_swallowed_ends_the_process(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    Collected()
    assert codes == [75]
    assert capsys.readouterr().err == "stopped by SIGTERM: the same command resumes\n"


def test_who_swallows_the_exception_is_not_waited_for(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    monkeypatch.setattr(signals, "GRACE", 0.01)
    with contextlib.suppress(SystemExit):
        signal.raise_signal(signal.SIGINT)
    assert ended.wait(SAFETY)


@pytest.mark.parametrize("number", NUMBERS)
def test_after_the_work_a_signal_changes_nothing(number, capsys):
    signals.all_done()
    signal.raise_signal(number)
    assert capsys.readouterr().err == ""


def test_after_the_work_several_processes_are_not_waited_for(monkeypatch, capsys):
    monkeypatch.setattr(processes, "several", lambda: True)
    signals.all_done()
    with pytest.raises(RuntimeError, match="at once: 130"):
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err == ""


def test_a_signal_while_the_interpreter_ends_does_not_take_its_code():
    """All is written by then: it is done, as its exit code says."""
    program = (
        "import os, signal; from ofa_jax.run import signals;"
        "C = type('C', (), {'__del__': lambda self, kill=os.kill, pid=os.getpid(),"
        " number=signal.SIGTERM: kill(pid, number)});"
        "late = C(); signals.handle(); signals.all_done()"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=SAFETY).returncode == 0


def test_what_is_ignored_stays_so(capsys):
    """As under `nohup`, also while training steps."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.handle()
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.at(1)
    signal.raise_signal(signal.SIGHUP)
    assert capsys.readouterr().err == ""


def test_what_tests_start_reacts_to_signals_where_a_shell_ignores_them():
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    restore_signals()
    program = "import signal; print(signal.getsignal(2) is signal.default_int_handler,"
    program += " signal.getsignal(1) is signal.SIG_DFL)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True True\n"
    signal.raise_signal(signal.SIGHUP)  # does not end the tests themselves


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_training_is_stopped_between_two_steps(number):
    with stop_requests() as stop:
        assert not stop.at(1)
        signal.raise_signal(number)
        signal.raise_signal(number)  # impatient ones wait for the save too
        assert stop.at(2)
        assert stop.signal == number.name
    with pytest.raises(SystemExit):  # main.py's own again
        signal.raise_signal(number)


def test_ctrl_c_does_not_wait_for_a_step():
    with pytest.raises(SystemExit) as ended, stop_requests():
        signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130
