"""Small files: the one way to read them, and to write them whole or not at all.

Text is UTF-8 whatever the system's encoding is. What cannot be read is a `ValueError` that names
the file and the place, in one short line.
"""

import contextlib
import io
import json
import re
import reprlib
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ofa_jax import storage
from ofa_jax.errors import InputError

LARGEST = 256 * 2**20  # bytes: nothing that is read here comes near
COLOURS = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")  # what other programs put into their words
LONGEST = 200  # characters of another program's words
LINE = 300  # characters of an error
SHOWN = reprlib.Repr()
SHOWN.maxstring = SHOWN.maxother = SHOWN.maxlong = 60


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
      ValueError: no such file, a directory, pipe or device, too large, or no UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: byte {error.start} is not") from error


def read_bytes(path: Path) -> bytes:
    """A file's bytes; raises as `read_text`, but for the encoding."""
    size = check_regular(path)
    if size > LARGEST:
        raise InputError(f"{path} has {size / 1e6:.0f} MB: expected a small file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or short(error)}") from error


def check_regular(path: Path) -> int:
    """The bytes of a file that can be read to its end.

    Raises:
      ValueError: no such file, or a directory, pipe or device.
    """
    try:
        if not storage.is_remote(path) and not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no regular file")  # a pipe would be waited for
        return storage.size(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or short(error)}") from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has every `ValueError` inside name the file that is read, in one short line."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        message, name = str(error), str(path)
        if name not in message:
            message = f"{name}: {message}"
        raise InputError(short(message, max(LINE, len(name) + LONGEST))) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      ValueError: as `read_text`; no JSON, with the place; NaN or an infinity, which JSON has not.
    """
    try:
        return parse_json(read_text(path))
    except JsonError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


class JsonError(InputError):
    """Text that is not JSON."""


def parse_json(text: str) -> Any:
    """What a JSON text holds; `JsonError`, with the place, where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise JsonError(short(error)) from error


def _refuse(name: str) -> NoReturn:
    raise InputError(f"{name} is no number of JSON")


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """The object that a JSON file holds, which has these keys.

    Raises:
      ValueError: as `read_json`; something else than an object, or a key missing, by name.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}: expected an object")
    for key in keys:
        if key not in content:
            raise InputError(f"{path} has no {key!r}")
    return content


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, all of them read.

    Raises:
      ValueError: as `read_text`; no such file, damaged, with more than `LARGEST` bytes unpacked, or
        with Python objects inside.
    """
    data = io.BytesIO(read_bytes(path))
    try:
        _check_unpacked(data)
        with np.load(data, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # zip, zlib, NumPy's header and its parser each raise their own
        # Memory too: a header may say any shape, whatever follows it.
        damaged = isinstance(error, zipfile.BadZipFile | MemoryError)
        reason = "damaged" if damaged else short(error)
        raise InputError(f"{path} is no .npz file of arrays: {reason}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of what it does not know
            raise InputError(f"{path} is no .npz file of arrays: {shown(name)} is none")
    return arrays


def _check_unpacked(data: io.BytesIO) -> None:
    """Raises `ValueError` for a small file that unpacks to a large one."""
    if zipfile.is_zipfile(data):
        with zipfile.ZipFile(data) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
        if size > LARGEST:
            raise InputError(f"it unpacks to {size / 1e6:.0f} MB")
    data.seek(0)


def short(error: BaseException | str, longest: int = LONGEST) -> str:
    """Words on one line, without control characters and colours, cut where they are long."""
    words = " ".join(COLOURS.sub("", str(error)).split()) or type(error).__name__
    words = "".join(c if c.isprintable() else "\ufffd" for c in words[: longest + 1])
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def shown(value: Any) -> str:
    """A value as errors show it: its start, where it is long."""
    try:
        return short(SHOWN.repr(value))
    except ValueError:  # a whole number of thousands of digits
        return f"{type(value).__name__} of too many digits"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Has whatever the system says of a write inside name the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or short(error)
        raise OSError(f"{path} could not be written: {reason}") from error


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Gives a local place to write a file to, from which it is moved to `path` as a whole.

    A reader sees the old file or the new one, never half of one; where writing fails, nothing is
    left. The place has the path's suffix: some programs look at it.

    Raises:
      OSError: it could not be written, with the file and the reason.
    """
    with writing(path), storage.replaced_file(path) as temporary:
        yield temporary


def write_text(path: Path, text: str) -> None:
    """Writes a text file as `written` does.

    What UTF-8 has no bytes for, half of a surrogate pair from some damaged file, is escaped.
    """
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, data: Any) -> None:
    """Writes JSON as `write_text` does."""
    write_text(path, json.dumps(data, indent=1) + "\n")
