"""Where files lie: on disks, or as objects in a bucket of Google Cloud Storage, `gs://`.

Whatever both can do is done by a path's own methods: a local path is pathlib's, one of a bucket is
`etils.epath`'s, which has the same. What they do differently is here, and only here. In a bucket a
write of one object is atomic, every listing sees the writes before it, and directories are nothing
but names that begin alike; no object can be appended to, and none renamed.
"""

import contextlib
import functools
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

BUCKET = "gs://"
TEMPORARY = ".tmp."  # begins the name of what is being written
SENT_EVERY = 30.0  # seconds between two times that a growing object is rewritten, at least
SENT_SHARE = 20  # and so many times as long as that takes: at most 5 % of the time


def as_path(place: str | os.PathLike[str]) -> Path:
    """The path of a file or directory, in a bucket if it begins with `gs://`."""
    if not is_remote(place):
        return place if isinstance(place, Path) else Path(place)
    _objects()
    from etils import epath

    return cast(Path, epath.Path(place))


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether something lies in a bucket."""
    return os.fspath(place).startswith(BUCKET)


@functools.cache
def _objects() -> Any:
    """The file system of all buckets.

    Made before etils makes its own, which then is like it. Google's credentials are found as its
    programs find them; the extra `gcs` brings what it needs.
    """
    os.environ.setdefault("EPATH_USE_TF", "false")  # where it is installed etils would use it
    import fsspec

    # TensorStore and other processes write, too: a listing kept from before would be wrong.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs")


def check_bucket(path: Path) -> None:
    """Raises `OSError` unless a path is local, or of a bucket that can be reached."""
    if is_remote(path):
        bucket = os.fspath(path).removeprefix(BUCKET).partition("/")[0]
        with reaching(f"{BUCKET}{bucket} cannot be reached"):
            try:
                _objects().info(bucket)
            except FileNotFoundError:  # its message is a part of the address
                raise FileNotFoundError("there is no such bucket") from None


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is of the way to a bucket, and not of what it holds."""
    while error is not None:
        if type(error).__module__.partition(".")[0] in ("gcsfs", "aiohttp", "google", "requests"):
            return True
        error = error.__cause__
    return False


@contextlib.contextmanager
def reaching(what: str = "") -> Iterator[None]:
    """Turns whatever the way to a bucket raises into an `OSError`, which says `what` failed."""
    try:
        yield
    except Exception as error:  # gcsfs, aiohttp, requests and google.auth each raise their own
        reason = str(error) or type(error).__name__
        raise OSError(f"{what}: {reason}" if what else reason) from error


# -- asking ----------------------------------------------------------------------------------------


def absolute(path: Path) -> Path:
    """The path from the root on."""
    return path if is_remote(path) else path.absolute()


def resolved(path: Path) -> Path:
    """The path from the root on, without links: equal paths are one place."""
    return path if is_remote(path) else path.resolve()


def is_link(path: Path) -> bool:
    """Whether there is a link, wherever it leads."""
    return not is_remote(path) and path.is_symlink()


def is_regular(path: Path) -> bool:
    """Whether a path of `below` can be read to its end: no pipe and no device."""
    return is_remote(path) or path.is_file()


def is_published(directory: Path, last: str) -> bool:
    """Whether there is a directory that `replaced` writes, with its `last` file in a bucket."""
    if is_remote(directory):
        return (directory / last).is_file()
    return directory.exists() or directory.is_symlink()


def takes_files(directory: Path) -> bool:
    """Whether files can be written there: a bucket's directories are in their names alone."""
    return is_remote(directory) or directory.is_dir()


def below(directory: Path) -> list[Path]:
    """Everything below a directory that is none itself, in order."""
    if is_remote(directory):
        return [as_path(f"{BUCKET}{name}") for name in sorted(_objects().find(str(directory)))]
    return sorted(path for path in directory.rglob("*") if not path.is_dir())


def size(path: Path) -> int:
    """The bytes of a file; raises `FileNotFoundError`."""
    return int(_objects().size(str(path))) if is_remote(path) else path.stat().st_size


def modified(path: Path) -> float:
    """When a file was written last, in seconds since 1970."""
    if is_remote(path):
        return float(_objects().modified(str(path)).timestamp())
    return path.stat().st_mtime


def free_bytes(directory: Path) -> float:
    """How much a directory's disk has room for."""
    return float("inf") if is_remote(directory) else shutil.disk_usage(directory).free


# -- reading and writing ---------------------------------------------------------------------------


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Gives a file to libraries that read local ones alone."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, path.name)
        with reaching(f"{path} cannot be read"):
            _objects().get_file(str(path), str(copy))
        yield copy


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Gives a local place to write a file to, which replaces `path` at once when left.

    The place has the path's suffix: some programs look at it. Where writing fails, nothing is left.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as scratch:
            temporary = Path(scratch, path.name)
            yield temporary
            with reaching():
                _objects().put_file(str(temporary), str(path))
        return
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced(directory: Path, last: str) -> Iterator[Path]:
    """Gives a local directory to write to, which replaces `directory` as a whole when left.

    In a bucket its file `last` goes first and comes last: without it there is nothing. Where
    writing fails, nothing is left.
    """
    if is_remote(directory):
        with tempfile.TemporaryDirectory() as scratch:
            temporary = Path(scratch, directory.name)
            temporary.mkdir()
            yield temporary
            with reaching(f"{directory} could not be written"):
                _publish(temporary, directory, last)
        return
    temporary = directory.with_name(TEMPORARY + directory.name)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        if directory.exists():
            shutil.rmtree(directory)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(source: Path, directory: Path, last: str) -> None:
    (directory / last).unlink(missing_ok=True)
    remove(directory)
    for path in sorted(below(source), key=lambda path: path == source / last):
        _objects().put_file(str(path), str(directory / path.relative_to(source)))


def create(path: Path, data: bytes) -> bool:
    """Writes an object of a bucket unless there is one of this name; whether it did.

    Of several processes that try, one does.
    """
    with reaching():
        try:
            _objects().pipe_file(str(path), data, mode="create")
        except FileExistsError:
            return False
    return True


def appending(path: Path) -> BinaryIO:
    """A file to append to: what is written can be read at once, in a bucket after a while.

    There, all of it is rewritten every `SENT_EVERY` seconds, by `flush` and by `close`.
    """
    return _Resent(path) if is_remote(path) else _AtOnce(io.FileIO(path, "a"))


class _AtOnce(io.BufferedWriter):
    """A file on a disk, which has what is written as soon as it is."""

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self.flush()
        return written


class _Resent(io.BytesIO):
    """An object that grows, which a bucket has not: it is kept here, and now and then written."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._due = path, False
        self._next = time.monotonic() + SENT_EVERY
        if path.is_file():
            super().write(path.read_bytes())

    def write(self, data: Any, /) -> int:
        self._due = True
        written = super().write(data)
        if time.monotonic() >= self._next:
            self.flush()
        return written

    def flush(self) -> None:
        if not self._due:
            return
        began = time.monotonic()
        with reaching():
            _objects().pipe_file(str(self._path), self.getvalue())
        self._due, now = False, time.monotonic()
        self._next = now + max(SENT_EVERY, SENT_SHARE * (now - began))

    def close(self) -> None:
        try:
            if not self.closed:
                self.flush()
        finally:
            super().close()


# -- moving and removing ---------------------------------------------------------------------------


def move(directory: Path, target: Path) -> None:
    """Moves a directory, in place of what is at `target`; in a bucket file by file."""
    remove(target)
    if not is_remote(directory):
        target.parent.mkdir(exist_ok=True)
        directory.rename(target)
        return
    with reaching(f"{directory} could not be moved"):
        for path in below(directory):
            _objects().cp_file(str(path), str(target / path.relative_to(directory)))
            _objects().rm_file(str(path))


def remove(directory: Path) -> None:
    """Removes a directory with all that is in it, if it exists."""
    if not is_remote(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return
    with reaching(f"{directory} could not be removed"), contextlib.suppress(FileNotFoundError):
        _objects().rm(str(directory), recursive=True)


def discard(directory: Path) -> None:
    """Removes a directory so that a part of it is never taken for the whole.

    In a bucket parts stay where that is interrupted: what is read there must be sealed.
    """
    if not is_remote(directory):
        leftover = directory.with_name(TEMPORARY + directory.name)
        shutil.rmtree(leftover, ignore_errors=True)
        directory = directory.rename(leftover)
    remove(directory)
