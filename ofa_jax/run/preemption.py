"""SIGTERM, as preempted machines get it: seen between two steps, so that nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from ofa_jax.run.signals import STOPS


class Preempted(Exception):
    """The run was asked to stop, and has saved what it had."""


class StopRequests:
    """Whether the run is asked to stop, and by which signal; once it is, it stays so."""

    def __init__(self) -> None:
        self.asked = ""

    def at(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer in every process, whichever was asked."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.asked = signal.SIGTERM.name
        return bool(self.asked)

    def ask(self, number: int, _: object = None) -> None:
        """Asks; as a signal's handler too."""
        self.asked = signal.Signals(number).name


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Gives what says whether one of `STOPS` came; inside, the process no longer ends by it.

    Several processes learn of it from JAX, which has taken SIGTERM at `connect` to tell all.
    """
    stop = StopRequests()
    # Only the main thread may handle signals.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: h for n in STOPS if (h := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop.ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
