"""The benchmark command: what a call of a subnet takes, in every runtime installed."""

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ofa_jax import checkpoint
from ofa_jax.errors import InputError
from ofa_jax.run import processes
from ofa_jax.run.card import Card, Latency, read_card
from ofa_jax.run.card_writer import write_card
from ofa_jax.run.export import KINDS, load_export
from ofa_jax.run.metrics import track
from ofa_jax.run.precision import RUNTIMES
from ofa_jax.subnets.latency import machine

WARM, ROUNDS, REPEATS = 3, 5, 50
Call = Callable[[], Any]
# (runtime, threads, batch) of what is timed.
Case = tuple[str, int, int]


def benchmark(directory: Path, batch: int = 32, repeats: int = REPEATS) -> None:
    """Times a subnet's runtimes at batch 1 and `batch`, prints a table and writes it in the card.

    Each is called a few times in a row, and they take turns, so that what else the machine does
    falls on all alike. ONNX Runtime and LiteRT run with one thread and with as many as there are
    cores; JAX with the latter. `benchmarks/export.py` times the reference beside them.

    Raises:
      ValueError: an altered subnet, or a batch below 1.
    """
    if batch < 1:
        raise InputError(f"--batch={batch}: expected at least 1")
    card = read_card(directory)
    calls: dict[Case, Call] = {}
    for size in sorted({1, batch}):
        calls |= _calls(directory, card, size)
    rows = _timed(calls, repeats)
    print(_table(rows))  # first: the directory may be one that nobody can write
    write_card(directory, dataclasses.replace(card, latency=rows, machine=machine()), [])


def benchmark_once(directory: Path, batch: int) -> None:
    """Times a subnet unless its card has times already; on the first of several processes."""
    if processes.from_first(lambda: bool(read_card(directory).latency)):
        print(f"benchmark is complete: {directory}")
        return
    processes.from_first(lambda: benchmark(directory, batch))


def _calls(directory: Path, card: Card, batch: int) -> dict[Case, Call]:
    """A call of each runtime on made-up images: time does not depend on what they show."""
    subnet, variables = checkpoint.load_subnet(directory)
    cores = machine()["threads"] or 1
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, card.resolution, card.resolution, 3), np.uint8)
    images = (pixels / np.float32(127.5) - 1).astype(np.float32)
    apply = jax.jit(subnet.apply)
    calls: dict[Case, Call] = {
        ("JAX", cores, batch): lambda: jax.block_until_ready(apply(variables, images))
    }
    for name, made in card.exports.items():
        if any(importlib.util.find_spec(package) is None for package in KINDS[name].packages):
            continue
        if made.batch not in (None, batch):
            continue
        taken = pixels if made.input.startswith("uint8") else images
        if name == "stablehlo":
            loaded = load_export(directory, name, card)
            calls["StableHLO", cores, batch] = functools.partial(loaded, taken)
            continue
        for threads in sorted({1, cores}):
            loaded = load_export(directory, name, card, threads=threads)
            calls[RUNTIMES[name], threads, batch] = functools.partial(loaded, taken)
    return calls


def _timed(calls: dict[Case, Call], repeats: int) -> tuple[Latency, ...]:
    times: dict[Case, list[float]] = {case: [] for case in calls}
    for _ in track(range(ROUNDS), ROUNDS, "timing"):
        for case, call in calls.items():
            # The first ones of a row meet threads of another runtime that still spin.
            for i in range(WARM + -(-repeats // ROUNDS)):
                began = time.perf_counter()
                call()
                if i >= WARM:
                    times[case].append(1e3 * (time.perf_counter() - began))
    rows = []
    for (runtime, threads, batch), values in times.items():
        median, p90 = np.quantile(values, [0.5, 0.9]).tolist()
        rows.append(Latency(runtime, batch, threads, median, p90))
    return tuple(sorted(rows, key=lambda row: (row.batch, row.runtime, row.threads)))


def _table(rows: tuple[Latency, ...]) -> str:
    lines = [f"{'runtime':18} {'batch':>5} {'threads':>7} {'median ms':>10} {'90 % ms':>10}"]
    lines += [
        f"{row.runtime:18} {row.batch:5} {row.threads:7} {row.median_ms:10.3f} {row.p90_ms:10.3f}"
        for row in rows
    ]
    return "\n".join(lines)
