"""Compiled programs, kept from one run to the next."""

import os
from pathlib import Path

import jax

SECONDS = 0.2  # what takes less to compile is not worth a file


def keep() -> None:
    """Has JAX keep compiled programs in `~/.cache/ofa_jax`, unless it is told a place already.

    `JAX_COMPILATION_CACHE_DIR` names another place, `JAX_ENABLE_COMPILATION_CACHE=false` keeps
    none. Where nothing can be written, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(home) / "ofa_jax"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
