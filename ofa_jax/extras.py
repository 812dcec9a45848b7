"""The extras of `pyproject.toml`: a missing package is named before the work that needs it."""

import importlib.util

from ofa_jax.errors import InputError


def check_installed(what: str, extra: str, *packages: str) -> None:
    """Checks that the packages that `what` needs are installed.

    Raises:
      ValueError: some are not; it names them and the extra that brings them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'ofa-jax[{extra}]'")
