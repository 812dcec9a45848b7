"""Compiled programs, kept from one run to the next."""

import contextlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

import jax

SECONDS = 0.2  # what takes less to compile is not worth a file
TROUBLE = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '([\w.]+)'")


def keep() -> None:
    """Has JAX keep compiled programs in `~/.cache/ofa_jax`, unless it has a place already.

    `JAX_COMPILATION_CACHE_DIR` names another place, `JAX_ENABLE_COMPILATION_CACHE=false` keeps
    none. Where nothing can be written, nothing is kept.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is not None:
        _mend_quietly(Path(chosen))
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(home) / "ofa_jax"
    if home.startswith("~"):  # of a user who has no home
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
        _mend_quietly(directory)


def _mend_quietly(directory: Path) -> None:
    """Has a program that cannot be read or written be removed, instead of a warning each time.

    A full disk or a kill leaves half of a file, which JAX would neither read nor write again.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **named: Any) -> None:
        trouble = TROUBLE.match(str(message))
        if trouble is None:
            shown(message, *rest, **named)
            return
        with contextlib.suppress(OSError):
            for path in directory.glob(f"{trouble[1]}-*"):
                path.unlink()

    warnings.showwarning = show
