"""Names and paths from outside that become files and directories."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ofa_jax.errors import InputError
from ofa_jax.extras import check_installed
from ofa_jax.files import short, shown
from ofa_jax.storage import BUCKET, as_path

PART, WHOLE = 255, 4000  # what file systems take of a path
LONGEST = 100  # bytes: words are added to some names, and file systems take 255
# Beyond what Linux forbids, what Windows, macOS and object stores do; a leading dot is ours.
FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
# A bucket and what its objects' names begin with, without what gcsfs takes for a pattern.
IN_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/*?\[\]#]+)+/?")
# What ends or rewrites a line of text, and bytes of a path that are not of the system's encoding.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
VARIABLE = re.compile(r"\$\w|\$\{|%\w+%")  # at the start of a path


def check_name(what: str, name: Any) -> str:
    """The name, if a directory can be called that on any file system, inside the one it is for.

    Raises:
      ValueError: an empty or long name, a path, a leading dot, or what some system forbids.
    """
    if (
        not isinstance(name, str)
        or not name
        or len(name.encode(errors="replace")) > LONGEST
        or name[0] in ". ~$"  # a path of that name would be another one
        or VARIABLE.match(name)
        or name[-1] in ". "
        or FORBIDDEN.search(name)
        or DEVICES.fullmatch(name)
        or not name.isprintable()
    ):
        raise InputError(
            f"{what}={shown(name)}: expected a plain name, such as 'phone': no path, no"
            f" leading dot, at most {LONGEST} bytes"
        )
    return name


def check_classes(names: Sequence[str]) -> None:
    """Raises `ValueError` unless the names of the classes all differ."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"classes: {shown(repeated[0])} is named twice")


def check_inside(what: str, path: str) -> str:
    """The relative path of a file, if it stays inside the directory that it is relative to.

    Raises:
      ValueError: an absolute path, or one that leaves.
    """
    parts = PurePosixPath(path).parts
    odd = path.startswith("/") or "\\" in path or "\0" in path or not path.isprintable()
    if not parts or odd or ".." in parts or any(len(p.encode()) > PART for p in parts):
        raise InputError(f"{what}={shown(path)}: expected a file inside the directory")
    return path


def place(what: str, text: str) -> Path:
    """The path that a text means, on a disk or in a bucket: gs://BUCKET/PATH.

    Raises:
      ValueError: as `local_path`, an address of another kind of storage, a bucket alone, or what
        buckets need is not installed.
    """
    if not ELSEWHERE.match(text):
        return local_path(what, text)
    inside = IN_BUCKET.fullmatch(text)
    if inside is None or ".." in text.split("/") or UNPRINTABLE.search(text) or len(text) > WHOLE:
        raise InputError(
            f"{what}={shown(text)}: expected a local path, or {BUCKET}BUCKET/PATH; mount other"
            " storage, with rclone for example"
        )
    check_installed(f"{what}={shown(text)}", "gcs", "gcsfs")
    return as_path(text.rstrip("/"))


def local_path(what: str, text: str) -> Path:
    """The path that a text means, "~" being one's home.

    Raises:
      ValueError: the address of something that no file system here has, such as gs://bucket/run; a
        path that begins with a variable, such as $HOME, is not UTF-8, or has line breaks.
    """
    if ELSEWHERE.match(text):
        raise InputError(
            f"{what}={shown(text)}: expected a local path; mount the bucket, with gcsfuse or"
            " rclone, or copy from it"
        )
    parts = PurePosixPath(text).parts
    if any(len(part.encode(errors="replace")) > PART for part in parts) or len(text) > WHOLE:
        raise InputError(
            f"{what}={shown(text)}: no path: longer than {WHOLE} characters, or a part of it than"
            f" {PART} bytes"
        )
    if VARIABLE.match(text):
        raise InputError(
            f"{what}={shown(text)}: no shell has replaced this variable: give its value"
        )
    # Orbax takes paths as UTF-8, cards and reports are written in it.
    if UNPRINTABLE.search(text) or not _is_utf8(text):
        raise InputError(
            f"{what}={shown(text)}: expected a path in UTF-8, on one line; where the locale has"
            " another encoding, set PYTHONUTF8=1"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{what}={shown(text)}: {short(error)}") from error


def _is_utf8(path: str) -> bool:
    """Whether the path's bytes on disk are its text in UTF-8."""
    try:
        return os.fsencode(path) == path.encode("utf-8")
    except UnicodeEncodeError:
        return False


def printable(path: str | os.PathLike[str]) -> str:
    """A path for people, on one line: what is not UTF-8 or cannot be printed is escaped."""
    text = os.fspath(path)
    with contextlib.suppress(UnicodeEncodeError):  # text that is no path of this locale
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def read_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path as text, the same in every locale.

    Raises:
      ValueError: it is not UTF-8, or cannot be printed on one line.
    """
    try:
        name = os.path.basename(os.fsencode(path)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{printable(path)}: its name is not UTF-8, rename it") from error
    if UNPRINTABLE.search(name):
        raise InputError(f"{printable(path)!r}: its name has line breaks or the like, rename it")
    return name
