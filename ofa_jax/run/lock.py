"""One run a directory: a lock that other processes respect, on a disk or in a bucket."""

import contextlib
import fcntl
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ofa_jax import storage
from ofa_jax.errors import InputError
from ofa_jax.files import LONGEST, parse_json, short
from ofa_jax.run import processes

LOCK = ".lock"  # a file, or what the names of a bucket's owner objects begin with
BEAT, STALE = 10.0, 60.0  # seconds between an owner's signs of life; how long it may give none
TAKEN = 2  # exit code: as all that the user is to look at
_locked: set[Path] = set()  # by this process


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes out of a directory until left; within itself it does nothing.

    On a disk the lock is the system's: it goes when the process does, however that ends. A bucket
    has none, so an owner writes an object, again every `BEAT` seconds; `STALE` seconds after the
    last time another process may take over, as it does after a killed one.

    Raises:
      ValueError: it is in use.
      OSError: it cannot be written.
    """
    place = storage.resolved(directory)
    if place in _locked:
        yield
        return
    with _owned(directory) if storage.is_remote(directory) else _flocked(directory):
        _locked.add(place)
        try:
            yield
        finally:
            _locked.discard(place)


# -- on a disk -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _flocked(directory: Path) -> Iterator[None]:
    if (directory / LOCK).is_dir():
        raise InputError(
            f"{directory / LOCK} is the lock of a run in a bucket: remove it if {directory} is a"
            f" copy, and use gs:// if it is the mounted bucket"
        )
    with (directory / LOCK).open("a+", encoding="utf-8") as lock:
        _take(lock, directory)
        yield


def _take(lock: TextIO, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = short(lock.read(LONGEST))
        raise InputError(f"{directory} is in use by another run, process {owner}") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


# -- in a bucket -----------------------------------------------------------------------------------
#
# Owners are numbered, and the highest number is the owner: an object that is created only if there
# is none of its name cannot be two processes'. Numbers are never used again, so an owner that was
# taken for dead cannot take the place of its successor; it finds the higher number, and ends.


@contextlib.contextmanager
def _owned(directory: Path) -> Iterator[None]:
    owner = _Owner(directory / LOCK)
    owner.take()
    beating = threading.Thread(target=owner.beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        owner.left.set()
        beating.join(BEAT)
        with contextlib.suppress(OSError), storage.reaching():  # it becomes stale
            owner.write(released=True)


class _Owner:
    """This process as the owner of a directory in a bucket."""

    def __init__(self, directory: Path):
        self._directory, self._number, self._beats = directory, 0, 0
        self._about = {
            "host": socket.gethostname(), "process": os.getpid(), "id": uuid.uuid4().hex
        }  # fmt: skip
        self.left = threading.Event()

    def take(self) -> None:
        """Becomes the owner; waits for the end of one that gives no sign of life.

        Raises:
          ValueError: there is a live one.
        """
        while True:
            newest = max(self._numbers(), default=0)
            if newest:
                self._wait_for_end(newest)
            self._number = newest + 1
            created = storage.create(self._object(self._number), self._content())
            # A request that is sent again after its answer was lost meets its own object.
            if created or self._read(self._number).get("id") == self._about["id"]:
                break
        for number in self._numbers():
            if number < self._number:
                self._object(number).unlink(missing_ok=True)

    def beat(self) -> None:
        """Writes signs of life until it is left; ends the process where another is the owner."""
        while not self.left.wait(BEAT):
            with contextlib.suppress(OSError), storage.reaching():  # of the network: next time
                newer = max(self._numbers(), default=0)
                if newer > self._number:
                    processes.end_at_once(
                        f"error: {self._directory.parent} was taken over by another run,"
                        f" {_named(self._read(newer))}, as this one gave no sign of life",
                        TAKEN,
                    )
                self._beats += 1
                self.write()

    def write(self, released: bool = False) -> None:
        """Writes the own object again."""
        self._object(self._number).write_bytes(self._content(released))

    def _wait_for_end(self, number: int) -> None:
        """Returns once an owner is no more; raises `ValueError` where it is."""
        seen, began = self._read(number), time.monotonic()
        if seen.get("released"):
            return
        print(f"{self._directory.parent} was in use by {_named(seen)}: waiting for up to"
              f" {STALE:.0f} s whether it still is", flush=True)  # fmt: skip
        while time.monotonic() - began < STALE:
            time.sleep(BEAT / 10)
            found = self._read(number)
            if found.get("released"):
                return
            if found != seen:
                raise InputError(
                    f"{self._directory.parent} is in use by another run, {_named(found)}"
                )

    def _numbers(self) -> list[int]:
        names = [path.name for path in storage.below(self._directory)]
        return [int(name) for name in names if re.fullmatch("[0-9]{1,9}", name)]

    def _object(self, number: int) -> Path:
        return self._directory / f"{number:06}"

    def _read(self, number: int) -> dict[str, Any]:
        try:
            found = parse_json(self._object(number).read_bytes().decode(errors="replace"))
        except (FileNotFoundError, InputError):  # a successor removed it; none of ours
            return {}
        return found if isinstance(found, dict) else {}

    def _content(self, released: bool = False) -> bytes:
        return json.dumps({**self._about, "beat": self._beats, "released": released}).encode()


def _named(owner: dict[str, Any]) -> str:
    return short(f"process {owner.get('process')} on {owner.get('host')}")
