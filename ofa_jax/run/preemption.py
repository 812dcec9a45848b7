"""SIGTERM, as preempted machines get it: seen between two steps, so that nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from ofa_jax.run.signals import STOPS


class Preempted(Exception):
    """A stop was requested, and the run has saved its state."""


class StopRequests:
    """Whether a stop was requested, and by which signal (`signal`, "" for none)."""

    def __init__(self) -> None:
        self.signal = ""

    def at(self, step: int) -> bool:
        """Whether to stop after `step`: the same in every process, whichever got the signal."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM.name
        return bool(self.signal)

    def request(self, number: int, _: object = None) -> None:
        """Requests a stop; also the handler of a signal."""
        self.signal = signal.Signals(number).name


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Gives what says whether one of `STOPS` came; inside, the process no longer ends by it.

    Several processes learn of it from JAX, which handles SIGTERM since `connect` to notify all.
    """
    stop = StopRequests()
    # Only the main thread may handle signals.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: h for n in STOPS if (h := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop.request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
