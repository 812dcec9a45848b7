"""One input for one reader: what must hold of it."""

import contextlib
import shutil
import signal

from ofa_jax.errors import InputError

SECONDS = 60  # nothing that is read here takes a tenth of it, on a busy machine either
LONGEST = 300  # characters of an error


class Hang(BaseException):
    """It took longer than anybody waits; no error that a reader may catch."""


@contextlib.contextmanager
def limited(seconds=SECONDS):
    """Raises `Hang` in what takes longer."""

    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(reader, directory, put):
    """Has a reader read what `put` places at its file; its refusal, "" where it accepted it.

    Whatever it raises but a `ValueError` that names the file, in one short line, comes through.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    reader.prepare(directory)
    path = directory / (reader.file or "given")
    if path.is_file():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path)
    with limited():
        try:
            found = reader.read(directory)
        except InputError as error:
            check_told(reader, path, error)
            return str(error)
        reader.use(found)
    return ""


def check_told(reader, path, error):
    message = str(error)
    assert reader.refuses, f"refused: {message[:500]!r}"
    assert message.isprintable(), f"control characters: {message[:500]!r}"
    assert len(message) <= LONGEST, f"{len(message)} characters: {message[:500]!r}"
    if reader.file:
        assert (reader.names or path.name) in message, f"names no file: {message!r}"
