"""A run's metrics: JSON lines and TensorBoard for machines, a progress bar for people."""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from ofa_jax.errors import InputError
from ofa_jax.files import parse_json, read_text, write_text, writing
from ofa_jax.plain import build
from ofa_jax.run.processes import heartbeat, is_first
from ofa_jax.storage import appending, is_link

T = TypeVar("T")
LINE_SECONDS = 15.0  # between progress lines where there is no terminal


class MetricsLog:
    """Appends every figure to `metrics.jsonl` and `tb/`; a context manager.

    On resume, what was logged after the checkpoint is dropped: those steps are done again.
    Without a `workdir`, as in all processes but the first, nothing is written.
    """

    def __init__(self, workdir: Path | None, step: int):
        self._file: BinaryIO | None = None
        if workdir is None:
            return
        self._path = workdir / "metrics.jsonl"
        there = self._path.exists() or is_link(self._path)
        lines = read_text(self._path).splitlines(True) if there else []
        kept = [line for line in lines if _logged_by(line, step)]
        self._last = json.loads(kept[-1]) if kept else {}
        if kept != lines:
            write_text(self._path, "".join(kept))
        with writing(self._path):
            self._file = appending(self._path)
        # Not `EventFileWriter`: its thread dies of a full disk, and then it waits forever.
        (workdir / "tb").mkdir(exist_ok=True)
        file = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._board = RecordWriter(appending(workdir / "tb" / file))
        self._log_event(file_version="brain.Event:2")
        # TensorBoard discards what was logged of later steps.
        self._log_event(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def has_held_out(self, step: int) -> bool:
        """Whether the existing log ends with the held-out figures of a step."""
        return self._last.get("step") == step and self._last.get("group") == "held_out"

    def write(self, step: int, values: Mapping[str, float], phase: str, group: str) -> None:
        """Logs `values` of one step under `group`, such as "train" or "held_out".

        In a bucket, where nothing can be appended to, "train" is kept until the next `flush`, or
        for a while; a run that is killed meanwhile resumes before these steps.

        Raises:
          OSError: they could not be written.
        """
        if self._file is None:
            return
        record = {"step": step, "phase": phase, "group": group, "time": time.time(), **values}
        scalars = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        with writing(self._path):
            self._file.write((json.dumps(record) + "\n").encode())
            self._log_event(step=step, summary=Summary(value=scalars))
        if group != "train":
            self.flush()

    def flush(self) -> None:
        """Has everything that was logged in its place; raises as `write`."""
        if self._file is not None:
            with writing(self._path):
                self._file.flush()
                self._board.flush()

    def _log_event(self, **event: Any) -> None:
        self._board.write(Event(wall_time=time.time(), **event).SerializeToString())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        # What could not be written cannot be at the end either: the first error is reported.
        with contextlib.suppress(*(OSError,) * (kind is not None)):
            if self._file is not None:
                self._file.close()
                self._board.close()


def _logged_by(line: str, step: int) -> bool:
    if not line.endswith("\n"):
        return False  # of a killed run
    try:
        return build(_Logged, parse_json(line), strict=False).step <= step
    except InputError:  # the half line of a killed run
        return False


@dataclasses.dataclass(frozen=True)
class _Logged:
    """What every line has."""

    step: int


class Progress:
    """One phase's progress: images/s, loss, accuracy, time left in the phase and in the run.

    `units` is the phase's work in subnet passes and `units_after` that of the phases after it:
    phases draw different numbers of subnets, so steps are no measure of time.
    """

    def __init__(self, name: str, first: int, total: int, units: float, units_after: float):
        self._name, self._total = name, total
        self._units, self._units_after = units, units_after
        self._opened = self._started = self._last_line = time.monotonic()
        self._first: int | None = None  # the step from which time is measured
        self._done = first
        self._loss: float | None = None
        self._accuracy = 0.0
        self._tty = sys.stderr.isatty() and is_first()
        self._bar = tqdm(
            total=total,
            initial=first,
            desc=name,
            disable=not self._tty,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n}/{total}{postfix}",
            delay=0.1,  # nothing is shown before the first step, which may print that it compiles
        )

    def add(self, loss: float, accuracy: float) -> None:
        """One more step with its mean loss and accuracy."""
        keep = 0.95 if self._loss is not None else 0.0
        self._loss = keep * (self._loss or 0.0) + (1 - keep) * loss
        self._accuracy = keep * self._accuracy + (1 - keep) * accuracy
        self._done += 1

    def show(self, images: int) -> None:
        """Shows how far it is; `images` of a step."""
        if self._first is None:  # the first step compiles: no measure of the others
            self._first, self._started = self._done, time.monotonic()
            return
        text = self._text(images)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(self._done - self._bar.n)
        now = time.monotonic()
        if not self._tty and now - self._last_line > LINE_SECONDS:
            self._last_line = now
            print(f"  {self._name} {self._done}/{self._total} steps, {text}", flush=True)

    def close(self) -> float:
        """Ends the bar; returns the phase's seconds."""
        self._bar.close()
        return time.monotonic() - self._opened

    def _text(self, images: int) -> str:
        assert self._first is not None
        per_step = (time.monotonic() - self._started) / (self._done - self._first)
        left = per_step * (self._total - self._done)
        after = per_step * self._total / self._units * self._units_after
        return (
            f"{images / per_step:,.0f} images/s, loss {self._loss:.3f}, "
            f"accuracy {self._accuracy:.1%}, {clock(left)} left, run {clock(left + after)}"
        )


def track(items: Iterable[T], total: int, name: str) -> Iterator[T]:
    """The items, with progress and time left: a bar on a terminal, else a line now and then."""
    began = last_line = time.monotonic()
    tty = sys.stderr.isatty() and is_first()
    bar = tqdm(items, name, total, leave=False, disable=not tty, delay=2.0)
    for done, item in enumerate(bar, start=1):
        heartbeat(f"{name}, {done} of {total}")
        yield item
        now = time.monotonic()
        if not tty and now - last_line > LINE_SECONDS:
            last_line = now
            left = (now - began) / done * (total - done)
            print(f"  {name}: {done}/{total}, {clock(left)} left", flush=True)
    heartbeat("")


def clock(seconds: float) -> str:
    """Seconds as people read them: 0:42, 12:05 or 3:12:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(number: float, noun: str) -> str:
    """A number of things as people say it: 1 epoch, 2.5 epochs."""
    return f"{number:g} {noun}{'s' * (number != 1)}"
