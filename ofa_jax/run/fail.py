"""How the command ends where it cannot go on: one line and an exit code, or a traceback."""

import asyncio.base_events
import os
import re
import sys
import traceback
from typing import Any, NoReturn

from jax.errors import JaxRuntimeError

from ofa_jax.files import LINE, short
from ofa_jax.run import processes
from ofa_jax.storage import is_unreachable

# Exit codes: what the user can mend, and a lost process (sysexits' "unavailable"). `signals` has
# those of SIGTERM, SIGHUP and Ctrl-C.
WRONG, LOST = 2, processes.LOST


def say_once() -> None:
    """Has nothing but the error itself tell that a checkpoint could not be read.

    Orbax reads many arrays at once and raises the first error; those that are still under way then
    find their event loop closed, and Python would print a traceback for each.
    """
    others = sys.unraisablehook

    def hook(event: Any) -> None:
        coroutine = getattr(event.object, "cr_code", None)
        of_orbax = coroutine and f"{os.sep}orbax{os.sep}" in coroutine.co_filename
        frames = traceback.extract_tb(event.exc_traceback, limit=1)
        of_loop = frames and frames[0].filename == asyncio.base_events.__file__
        if not (of_orbax or of_loop):
            others(event)

    sys.unraisablehook = hook


def fail_unexpectedly(error: Exception) -> NoReturn:
    """Ends with what the runtime's errors most likely mean; others keep their traceback."""
    of_runtime = isinstance(error, JaxRuntimeError)
    if of_runtime and "RESOURCE_EXHAUSTED" in str(error):
        fail(f"out of memory; more parallel.micro_steps need less: {error}")
    fail_lost(error)
    if not processes.several():
        raise error
    traceback.print_exception(error)
    processes.end("error: this is a fault of the program", 1)


def fail_lost(error: Exception) -> None:
    """Ends with one line if an error says that another process was lost, or the bucket."""
    if processes.lost_another(error) or is_unreachable(error):
        fail(f"a process was lost, or the network: {error}", LOST)


def fail(error: Exception | str, code: int = WRONG) -> NoReturn:
    """Ends with an error as one line; with --traceback, with all of it."""
    if "--traceback" in sys.argv and isinstance(error, Exception):
        raise error
    text = str(error)
    if isinstance(error, KeyError):  # it quotes itself
        text = str(error.args[0])
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    if "Traceback" in text:  # ml_collections quotes what a config file raised
        text = re.sub(r"^[\w.]+Error: ", "", text.strip().splitlines()[-1])
    processes.end(short(f"error: {text}", LINE), code)
