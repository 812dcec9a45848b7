"""SIGTERM, as preempted machines get it: seen between two steps, so that nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Preempted(Exception):
    """The run was asked to stop, and has saved what it had."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM came; the process no longer ends by it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only it may handle signals
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
