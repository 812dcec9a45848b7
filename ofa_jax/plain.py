"""Frozen dataclasses from plain data, every error by the full name of its field."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from ofa_jax.space import Number


def build(kind: Any, data: Any, path: str = "") -> Any:
    """Plain `data` as the annotated type `kind`.

    Args:
      kind: a dataclass, a tuple or dict of such, a number, text or `Any`.
      data: what JSON or a `ConfigDict` holds.
      path: where it lies, for errors.

    Raises:
      ValueError: an unknown or missing field, a wrong type, or a value that the dataclass
        refuses; each by its path.
    """
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, data, path)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(data, list | tuple):
        return tuple(build(args[0], v, f"{path}[{i}]") for i, v in enumerate(data))
    if origin is dict and isinstance(data, Mapping):
        return {k: build(args[1], v, f"{path}.{k}") for k, v in data.items()}
    if kind == Number and isinstance(data, int | float) and not isinstance(data, bool):
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if origin is None and isinstance(data, kind) and (kind is bool or not isinstance(data, bool)):
        return data
    expected = str(kind) if isinstance(kind, types.GenericAlias) else kind.__name__
    raise ValueError(f"{path}={data!r}: expected {expected}")


def _build_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{path}={data!r}: expected a group of fields")
    types_of = typing.get_type_hints(kind)
    prefix = f"{path}." if path else ""
    for key in data:
        if key not in types_of:
            near = difflib.get_close_matches(key, types_of, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(f"unknown field {prefix}{key}: expected {', '.join(types_of)}{hint}")
    for field in dataclasses.fields(kind):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in data:
            raise ValueError(f"{prefix}{field.name} is missing")
    fields = {key: build(types_of[key], value, prefix + key) for key, value in data.items()}
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}" if path else str(error)) from error
