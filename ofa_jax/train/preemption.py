"""SIGTERM, as preempted machines get it: seen between two steps, so that nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to stop, and has saved what it had."""


class StopRequests:
    """Whether the run is asked to stop; once it is, it stays so."""

    def __init__(self) -> None:
        self.asked = False

    def at(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer in every process, whichever was asked."""
        if jax.process_count() > 1:
            self.asked = self.asked or multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def ask(self, *_: object) -> None:
        """Asks; as a signal's handler too."""
        self.asked = True


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Gives what says whether SIGTERM came; the process no longer ends by it.

    Several processes learn of it from JAX, which has taken the signal at `connect` to tell all.
    """
    stop = StopRequests()
    # Only the main thread may handle signals.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop.ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
