"""What the benchmarks share: time in turns, and where and by what the figures were measured."""

import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

Times = dict[Any, list[float]]


def in_turns(
    rounds: int,
    steps: int,
    contenders: Mapping[Any, Callable[[], Any]],
    warm: int = 1,
    told: bool = True,
) -> Times:
    """Seconds of each contender's calls, `steps` at a time in each round, one after the other.

    In turns, so that what else the machine does falls on all of them. The first `warm` calls, which
    compile, and set up what a branch needs when it is first taken, are not counted.
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
        if told:
            print(f"  round {turn + 1} of {rounds} done", flush=True)
    return times


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of a call, so many times; a first one, which compiles, is not counted."""
    return in_turns(1, repeats, {"": call}, told=False)[""]


def machine() -> dict[str, Any]:
    """Processor, cores, accelerator and versions."""
    names = ("jax", "jaxlib", "flax", "torch")
    found = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    versions = {name: importlib.metadata.version(name) for name in names if name in found}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    device = jax.devices()[0].device_kind
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "device": device, **versions}


def finish(path: str, figures: dict[str, Any]) -> None:
    """Prints where the figures were measured and writes them, if a path is given."""
    figures = {"machine": machine(), **figures}
    print("\n" + ", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    if path:
        with open(path, "w") as file:
            json.dump(figures, file, indent=2)
        print(f"written to {path}")
