"""Checks of a group's values, each of which names the field and what it may be."""

import math
from typing import Any

from ofa_jax.errors import InputError
from ofa_jax.files import shown
from ofa_jax.space import PIXELS


def between(section: Any, low: float, high: float, *fields: str) -> None:
    """Raises `ValueError` unless all of these fields are within both limits."""
    for field in fields:
        if not low <= getattr(section, field) <= high:
            limits = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"{field}={getattr(section, field)}: expected {limits}")


def pixels(field: str, resolutions: tuple[int, ...]) -> None:
    """Raises `ValueError` unless all of these are sizes of images, in pixels."""
    if not all(1 <= size <= PIXELS for size in resolutions):
        raise InputError(f"{field}={shown(resolutions)}: expected pixels, 1 to {PIXELS}")


def one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises `ValueError` unless the field has one of these values."""
    if value not in allowed:
        raise InputError(f"{field}={value!r}: expected one of {', '.join(allowed) or 'none'}")
