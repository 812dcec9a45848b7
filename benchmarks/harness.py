"""What the benchmarks share: timing in turns, and the machine and versions of the figures."""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from ofa_jax.extras import check_installed
from ofa_jax.subnets import latency

Times = dict[Any, list[float]]


def needs(*packages: str, extra: str = "bench") -> None:
    """Ends the benchmark with one line unless the packages, of an extra, are installed."""
    try:
        check_installed(f"python -m benchmarks.{Path(sys.argv[0]).stem}", extra, *packages)
    except ValueError as error:
        sys.exit(f"error: {error}")


def in_turns(
    rounds: int,
    steps: int,
    contenders: Mapping[Any, Callable[[], Any]],
    warm: int = 1,
    verbose: bool = True,
) -> Times:
    """Seconds of each contender's calls, `steps` at a time in each round, one after the other.

    In turns, so that other load on the machine affects all of them alike. The first `warm` calls,
    which compile, and set up what a branch needs when it is first taken, are not counted.
    """
    times: Times = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(warm):
            jax.block_until_ready(call())
    for turn in range(rounds):
        for name, call in contenders.items():
            for _ in range(steps):
                began = time.perf_counter()
                jax.block_until_ready(call())
                times[name].append(time.perf_counter() - began)
        if verbose:
            print(f"  round {turn + 1} of {rounds} done", flush=True)
    return times


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of `repeats` calls, after one that compiles and is not counted."""
    return in_turns(1, repeats, {"": call}, verbose=False)[""]


def machine() -> dict[str, Any]:
    """Processor, threads, accelerator and versions, PyTorch's too."""
    found = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    names = [name for name in ("flax", "torch") if name in found]
    return {**latency.machine(), **{name: importlib.metadata.version(name) for name in names}}


def finish(path: str, figures: dict[str, Any]) -> None:
    """Prints where the figures were measured and writes them, if a path is given."""
    figures = {"machine": machine(), **figures}
    print("\n" + ", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
        print(f"written to {path}")
