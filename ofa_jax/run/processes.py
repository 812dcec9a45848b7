"""Several processes as one run: start-up, one answer for all, and an end for all."""

import contextlib
import importlib.util
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

from ofa_jax.errors import InputError
from ofa_jax.files import short

LOST = 69  # exit code: sysexits' "service unavailable"


def check_devices() -> None:
    """Raises `ValueError` unless JAX finds devices of the kind in `JAX_PLATFORMS`."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # unknown, or without its library or driver
        named = os.environ.get("JAX_PLATFORMS", "")
        reason = short(error) if str(error) else "none of these"
        raise InputError(f"JAX finds no device with JAX_PLATFORMS={named!r}: {reason}") from error


def connect(coordinator: str = "", count: int = 0, index: int = -1, timeout: int = 300) -> None:
    """Joins the run's other processes; to be called before anything else of JAX.

    With no argument the environment tells: a TPU slice of several hosts, SLURM's `srun` or Open
    MPI. Nothing happens where it names no cluster, or `count` is 1. Where the others do not connect
    in time this process ends, as it can do nothing alone.

    Args:
      coordinator: "host:port" of process 0.
      count: how many processes there are.
      index: which of them this one is.
      timeout: seconds to wait for the others.

    Raises:
      ValueError: half of the arguments, or an address that is none.
    """
    arguments = (bool(coordinator), count > 0, index >= 0)
    if count == 1 or not (any(arguments) or _in_cluster()):
        return
    if any(arguments) and not all(arguments):
        raise InputError(
            "--coordinator=HOST:PORT, --processes=N and --process=I go together: the first"
            " process's address, how many there are, and which this one is, from 0"
        )
    if any(arguments) and not index < count:
        raise InputError(f"--process={index}: expected 0 to {count - 1}, as --processes={count}")
    if coordinator and not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator={coordinator!r}: expected HOST:PORT")
    # JAX's own limits end the process with pages of C++; this one, and parallel.timeout for one
    # that no longer answers, come first.
    late = threading.Timer(timeout, _give_up, (coordinator, timeout))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator or None,
            count or None,
            index if index >= 0 else None,
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=3600,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the processes of this run did not meet: {reason}{_hint()}") from error
    finally:
        late.cancel()


def _give_up(coordinator: str, timeout: int) -> None:
    where = f" at {coordinator}" if coordinator else ""
    print(
        f"error: the other processes of this run did not connect{where} within {timeout} s: is"
        " each of them started, and can it reach the first one?",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)


def _launched() -> str:
    """The variable by which `srun` or `mpirun` says that it started several processes, if any."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if os.environ.get(name, "1") not in ("", "0", "1"):
            return name
    return ""


def _hint() -> str:
    """How to run alone, where a variable that was left over says otherwise."""
    name = _launched()
    return f"; --processes=1 runs alone, whatever {name}={os.environ[name]} says" if name else ""


def _in_cluster() -> bool:
    """Whether the environment says that this is one of several processes, or a TPU VM."""
    if _launched():
        return True
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        return "," in hosts
    # A Cloud TPU VM has the hosts of its slice in its metadata, which JAX asks for.
    return any(os.path.exists(chip) for chip in ("/dev/accel0", "/dev/vfio/0")) and bool(
        importlib.util.find_spec("libtpu")
    )


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this is the process that prints, logs and writes."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """Every process's `value`, plain data as JSON has it, in order; waits for all of them."""
    if jax.process_count() == 1:
        return [value]
    heartbeat("waiting for the other processes")
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(data.size))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded)
    heartbeat("")
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails in one process inside fails in all of them, with that one's error.

    Raises:
      ValueError: of this process, or another one's, by its number.
    """
    mine: Exception | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        if jax.process_count() == 1:
            raise
        mine = error
    errors = gather(str(mine) if mine else "")
    if mine:
        raise mine
    for index, text in enumerate(errors):
        if text:
            raise InputError(f"process {index}: {text}")


def from_first(function: Callable[[], Any]) -> Any:
    """What `function` gives in the first process, plain data as JSON has it; everywhere."""
    value = None
    with together():
        if is_first():
            value = function()
    return gather(value)[0]


def check_same(what: str, values: dict[str, Any]) -> None:
    """Raises `ValueError`, naming both values, unless all processes have the same ones."""
    everyone = gather(values)
    for index, theirs in enumerate(everyone):
        for key in sorted({*everyone[0], *theirs}):
            first, other = everyone[0].get(key), theirs.get(key)
            if first != other:
                raise InputError(
                    f"the processes differ in {what}: {key} is {first!r} in process 0,"
                    f" {other!r} in process {index}"
                )


# -- one that hangs, or waits for one that does, deep inside the runtime where no exception comes --

_last_heartbeat: tuple[float, str] = (0.0, "")


def heartbeat(doing: str) -> None:
    """Resets the watchdog; `doing` names what comes next, "" for what may take any time."""
    global _last_heartbeat
    _last_heartbeat = time.monotonic(), doing


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Inside, one of several processes ends when its last heartbeat is longer ago than that."""
    over, main = threading.Event(), threading.get_ident()

    def watch() -> None:
        while not over.wait(min(1.0, seconds / 4)):
            since, doing = _last_heartbeat
            if doing and time.monotonic() - since > seconds:
                end(
                    f"error: {doing} takes longer than parallel.timeout={seconds:g} s: this"
                    f" process, or one it waits for, hangs. It is at {_place(main)}"
                )

    heartbeat("")
    if jax.process_count() > 1:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _place(thread: int) -> str:
    """Where a thread is, in this package if it is."""
    frames = traceback.extract_stack(sys._current_frames()[thread])
    own = [frame for frame in frames if f"{os.sep}ofa_jax{os.sep}" in frame.filename] or frames
    return f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}, {own[-1].name}"


def lost_another(error: BaseException | None) -> bool:
    """Whether an error says that another process of this run, or the way to it, was lost.

    The runtime's own errors do, and those of other libraries that wrap one.
    """
    if not several():
        return False
    while error is not None:
        # "Gloo AllGather failed" is a ValueError of JAX: an array that did not arrive was read.
        if isinstance(error, JaxRuntimeError) or "Gloo " in str(error):
            return "RESOURCE_EXHAUSTED" not in str(error)
        error = error.__cause__ or error.__context__
    return False


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except RuntimeError:  # a signal came while something else was being printed
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def end(text: str, code: int = LOST) -> NoReturn:
    """Says on standard error why, and ends; several processes say which one they are.

    One of several ends at once: a regular end would wait for the others, which may wait for it.
    """
    if not several():
        _say(text)
        sys.exit(code)
    end_at_once(text, code)


def end_at_once(text: str, code: int) -> NoReturn:
    """As `end`, from any thread: nothing is left as usual."""
    _say(f"process {jax.process_index()} of {jax.process_count()}: {text}" if several() else text)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if several() and is_first():  # the others talk through it, and may have the same to say
        time.sleep(2)
    os._exit(code)
