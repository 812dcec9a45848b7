"""Frozen dataclasses from plain data, every error by the full name of its field."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.files import LINE, short, shown
from ofa_jax.space import Number

LARGEST = 2**63 - 1
LARGEST_FLOAT = float(np.finfo(np.float32).max)  # what a number is on the device
hints = functools.cache(typing.get_type_hints)


def build(
    kind: Any, data: Any, path: str = "", *, strict: bool = True, largest: int = LARGEST
) -> Any:
    """Plain `data` as the annotated type `kind`.

    Args:
      kind: a dataclass, a tuple or dict of such, a number, text, `Any`, or one of these or None.
      data: what JSON or a `ConfigDict` holds.
      path: where it lies, for errors.
      strict: whether unknown fields are refused; else they are left out, as of others' files.
      largest: whole number.

    Raises:
      ValueError: an unknown or missing field, a wrong type, no finite number, one beyond `largest`
        or float32, or a value that the dataclass refuses; each by its path.
    """
    inner = functools.partial(build, strict=strict, largest=largest)
    data = data.item() if isinstance(data, np.generic) else data
    if kind is Any:
        return data
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return data if isinstance(data, kind) else _build_dataclass(kind, data, path, inner, strict)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if type(None) in args:
        return None if data is None else inner(args[0], data, path)
    if origin is tuple and isinstance(data, list | tuple):
        return tuple(inner(args[0], v, f"{path}[{i}]") for i, v in enumerate(data))
    if origin is dict and isinstance(data, Mapping):
        return {k: inner(args[1], v, f"{path}.{shown(k)[1:-1]}") for k, v in data.items()}
    if kind in (int, float, Number) and isinstance(data, int | float):
        return _number(kind, data, path, largest)
    if origin is None and isinstance(data, kind):
        return data
    raise InputError(f"{path}={shown(data)}: expected {_named(kind)}")


def _named(kind: Any) -> str:
    plain = isinstance(kind, type) and not isinstance(kind, types.GenericAlias)
    return kind.__name__ if plain else str(kind)


def _number(kind: Any, data: Number, path: str, largest: int) -> Number:
    if isinstance(data, bool) or (kind is int and isinstance(data, float)):
        raise InputError(f"{path}={shown(data)}: expected {_named(kind)}")
    if isinstance(data, int) and abs(data) > largest:
        raise InputError(f"{path}={shown(data)}: expected at most {largest:,}")
    if isinstance(data, float) and not abs(data) <= LARGEST_FLOAT:
        raise InputError(f"{path}={data!r}: expected a finite number of 32 bits")
    return float(data) if kind is float else data


def _build_dataclass(kind: Any, data: Any, path: str, inner: Any, strict: bool) -> Any:
    if not isinstance(data, Mapping):
        raise InputError(f"{path}={shown(data)}: expected a group of fields")
    types_of = hints(kind)
    prefix = f"{path}." if path else ""
    if not strict:
        data = {key: value for key, value in data.items() if key in types_of}
    for key in data:
        if key not in types_of:
            near = difflib.get_close_matches(str(key)[:LINE], types_of, n=1)
            hint = f"did you mean {prefix}{near[0]}? " if near else ""
            name = shown(key).strip("'")
            raise InputError(f"unknown field {prefix}{name}: {hint}expected {', '.join(types_of)}")
    for field in dataclasses.fields(kind):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise InputError(f"{prefix}{field.name} is missing")
    fields = {key: inner(types_of[key], value, prefix + key) for key, value in data.items()}
    try:
        return kind(**fields)
    except InputError as error:
        raise InputError(short(f"{prefix}{error}", LINE)) from error
