"""SIGTERM, a lost terminal and Ctrl-C: one line and an exit code, whatever the run is doing."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from ofa_jax.run import processes

# Exit codes: sysexits' "try again", and the shell's for Ctrl-C.
PREEMPTED, INTERRUPTED = 75, 130
STOPS = (signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal, or the connection to it, is lost
GRACE = 20.0  # seconds for leaving what is being done

_ending = False
_saying, _again = False, False  # a signal's line is being printed; another one came meanwhile


def handle() -> None:
    """Has these signals end the process with one line and a documented exit code.

    Nothing is lost by that: a run may be killed at any moment. Training takes the `STOPS` over
    while it steps, to save first (`preemption`); of several processes JAX takes SIGTERM, to
    tell all. A second signal waits for nothing. What is ignored stays so, as under `nohup`.
    """
    for number in (*STOPS, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def all_done() -> None:
    """From here on a signal changes nothing: the process ends by itself, with its own code.

    Ignored, since the interpreter, at its end, gives what is handled back to the system. Several
    processes wait for each other there, which a signal may cut short.
    """
    global _ending
    _ending = True
    if not processes.several():
        for number in (*STOPS, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Ends the process where a signal ends what is inside, once all of it is left.

    Without waiting for the interpreter: it would take modules away from threads that compile.
    """
    try:
        yield
    except SystemExit as end:
        if end.code not in (PREEMPTED, INTERRUPTED) or processes.several():
            raise  # several take leave of each other
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed, or without a reader
                stream.flush()
        os._exit(end.code)


def _end(number: int, _: object) -> None:
    global _ending, _saying, _again
    code = INTERRUPTED if number == signal.SIGINT else PREEMPTED
    if _saying:  # the line first
        _again = True
        return
    if _ending:
        os._exit(code)
    _ending = _saying = True
    # The exception may come up where it is swallowed: in a callback, such as the garbage
    # collector's, or in a library that catches everything.
    sys.unraisablehook = lambda _: os._exit(code)
    last = threading.Timer(GRACE, os._exit, (code,))
    last.daemon = True
    last.start()
    what = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    try:
        processes.end(f"{what}: the same command resumes", code)
    finally:
        _saying = False
        if _again:
            os._exit(code)
