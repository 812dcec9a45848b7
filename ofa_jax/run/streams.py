"""Standard streams that may go away: the run continues without them."""

import io
import os
import sys
from typing import Any, TextIO


def make_lasting() -> None:
    """Has the process outlive its standard streams; to be called once, before it does anything.

    A reader that is gone (`| head -1`), a full disk or a lost terminal ends printing, not the run:
    standard error says so in one line. A stream that was closed from the start is /dev/null, as
    the next file that is opened would otherwise take its place. What a stream's encoding does not
    have is printed escaped.
    """
    sys.stdin = sys.stdin or open(_discard(0), encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = _lasting(1, sys.stdout), _lasting(2, sys.stderr)


class _Lasting(io.FileIO):
    """A descriptor that takes whatever is written to it; what cannot be written is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            number = _discard(self.fileno())
            if number == 1:
                gone = f"standard output is gone ({error.strerror}): the run continues without it"
                print(gone, file=sys.stderr, flush=True)
            return memoryview(data).nbytes


def _lasting(number: int, stream: TextIO | None) -> TextIO:
    raw = _Lasting(number if stream else _discard(number), "w", closefd=False)
    errors = stream.errors if stream else None
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace" if errors in (None, "strict", "surrogateescape") else errors,
        line_buffering=True,  # a job's log shows a line once it is printed
    )


def _discard(number: int) -> int:
    """Makes a descriptor /dev/null, for native code too."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    return number
