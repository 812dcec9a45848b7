"""A latency table of this machine: every distinct block of a space, compiled and timed.

Blocks are timed in turns, each once a turn, so that a block finds the caches as it does in a net:
taken by others. What a call costs by itself is taken off all but the first layer. A net still costs
more or less than its blocks alone (measured: 0.89 to 1.17 times); so one factor is fitted to a few
whole subnets, and the table is then checked with others.
"""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import storage
from ofa_jax.alone import Alone
from ofa_jax.errors import InputError
from ofa_jax.files import write_json
from ofa_jax.network import build_subnet
from ofa_jax.search.latency import (
    UNIT,
    LatencyTable,
    Piece,
    latency_table,
    load_latency_table,
    parts,
)
from ofa_jax.space import SearchSpace

WARM = 3  # calls before the first that counts
FIT = 10  # whole subnets for the factor
Call = Callable[[], jax.Array]
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


def without_progress(items: Iterable[Any], total: int, name: str) -> Iterable[Any]:
    """The items, without progress."""
    return items


def build_latency_table(
    space: SearchSpace,
    resolutions: Sequence[int],
    path: str | Path,
    *,
    batch_size: int = 1,
    dtype: str = "float32",
    repeats: int = 50,
    validate: int = 30,
    seed: int = 0,
    track: Track = without_progress,
) -> LatencyTable:
    """Measures a table on this process's first device and writes it; `load_latency_table` reads it.

    Ten whole subnets give the factor between a net and the sum of its blocks; then so many others
    are timed, and the error of what the table predicts for them is printed and stored.

    Args:
      space: whose blocks are timed.
      resolutions: pixels.
      path: file to write (JSON).
      batch_size: images a call.
      dtype: "float32" or "bfloat16", of the images and hence of the computation.
      repeats: how often each block is timed; the median counts, the spread is stored.
      validate: how many whole subnets to check the table with; with 0 the factor is 1.
      seed: which subnets.
      track: (items, how many, what is done) to the same items, for a progress bar.

    Raises:
      ValueError: another dtype, numbers below 1, or no directory for `path`.
    """
    path = storage.as_path(path)
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype={dtype!r}: expected float32 or bfloat16")
    if not storage.takes_files(storage.absolute(path).parent):
        raise InputError(f"{path} cannot be written: there is no directory {path.parent}")
    numbers = [("batch_size", batch_size), ("repeats", repeats)]
    for name, value in (*numbers, *(("resolutions", size) for size in resolutions)):
        if value < 1:
            raise InputError(f"{name}={value}: expected at least 1")
    image = jnp.zeros((batch_size, 1, 1, 1), dtype)
    tables = {}
    for resolution in resolutions:
        pieces = {p.key: p for part in parts(space, resolution) for p in part.pieces.flat}
        tracked = track(pieces.values(), len(pieces), f"compiling blocks at {resolution} px")
        calls = {piece.key: _alone(space, piece, image) for piece in tracked}
        turns = track(range(repeats), repeats, f"timing at {resolution} px")
        tables[resolution] = _milliseconds(calls, turns)
    about = {
        "space": space.name, "unit": UNIT, "batch_size": batch_size, "dtype": dtype,
        "repeats": repeats, "machine": machine(),
    }  # fmt: skip
    if validate:
        alone = {
            r: {key: row["median"] for key, row in table.items()} for r, table in tables.items()
        }
        summed = latency_table(space, alone, str(path), about)
        whole = _whole_subnets(summed, resolutions, image, repeats, FIT + validate, seed, track)
        about |= _check(whole)
    write_json(path, {**about, "resolutions": tables})
    return load_latency_table(path, space)


def machine() -> dict[str, Any]:
    """Processor, threads to run on, device and versions."""
    names = ("jax", "jaxlib")
    return {
        "processor": _processor(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "device": jax.local_devices()[0].device_kind,
        **{name: importlib.metadata.version(name) for name in names},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _alone(space: SearchSpace, piece: Piece, image: jax.Array) -> tuple[Call, Call]:
    """A call of one layer, and one that takes the same and does nothing; both compiled."""
    net = Alone(space, piece.layers)
    x = jnp.broadcast_to(image, (len(image), piece.size, piece.size, piece.channels))
    variables = _random(net, x)
    return _compiled(net.apply, variables, x), _compiled(lambda v, x: x[0, 0, 0, :1], variables, x)


def _random(net: Any, x: jax.Array) -> Any:
    """Variables of normal size: time does not depend on them, but for numbers below float32."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(0.05 + 0.02 * np.abs(rng.normal(size=s.shape)), s.dtype), shapes
    )


def _compiled(function: Callable[..., Any], variables: Any, x: jax.Array) -> Call:
    jitted = jax.jit(function)

    def call() -> jax.Array:
        return jitted(variables, x)

    for _ in range(WARM):
        jax.block_until_ready(call())
    return call


def _seconds(call: Call) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def _milliseconds(
    calls: dict[str, tuple[Call, Call]], turns: Iterable[Any]
) -> dict[str, dict[str, float]]:
    """Median and spread (between quartiles) of each layer, all timed once in every turn."""
    times: dict[str, list[float]] = {key: [] for key in calls}
    first = next(iter(calls))  # the image comes in here: a call's own cost is a net's too
    for _ in turns:
        for key, (call, nothing) in calls.items():
            overhead = _seconds(nothing)
            taken = _seconds(call)
            times[key].append(taken - (overhead if key != first else 0.0))
    return {key: _statistics(values) for key, values in times.items()}


def _statistics(seconds: Sequence[float]) -> dict[str, float]:
    values = [1e3 * max(s, 0.0) for s in seconds]
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": middle, "spread": high - low, "repeats": len(values)}


def _whole_subnets(
    table: LatencyTable,
    resolutions: Sequence[int],
    image: jax.Array,
    repeats: int,
    count: int,
    seed: int,
    track: Track,
) -> list[dict[str, Any]]:
    """Random subnets: arch, resolution, the sum of the table's entries and measured ms."""
    space, calls, rows = table.space, [], []
    keys = jax.random.split(jax.random.key(seed), count)
    for i, key in enumerate(track(list(keys), count, "compiling subnets")):
        arch, resolution = space.sample(key), resolutions[i % len(resolutions)]
        net = build_subnet(space, arch)
        x = jnp.broadcast_to(image, (len(image), resolution, resolution, 3))
        calls.append(_compiled(net.apply, _random(net, x), x))
        described = {"arch": space.arch_to_dict(arch), "resolution": resolution}
        rows.append({**described, "predicted": table(arch, resolution)})
    turns = [[_seconds(call) for call in calls]
             for _ in track(range(repeats), repeats, "timing subnets")]  # fmt: skip
    for row, times in zip(rows, zip(*turns, strict=True), strict=True):
        row["measured"] = _statistics(times)["median"]
    return rows


def _check(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The factor by the first subnets, and how well the others are predicted with it."""
    factor = statistics.median(row["measured"] / row["predicted"] for row in rows[:FIT])
    others = [{**row, "predicted": row["predicted"] * factor} for row in rows[FIT:]]
    errors = [abs(row["predicted"] / row["measured"] - 1) for row in others]
    median = statistics.median(errors)
    took = [row["measured"] for row in others]
    print(
        f"latency table: a net costs {factor:.3f} times its blocks alone; {len(others)} other"
        f" subnets of {min(took):.2f} to {max(took):.2f} ms are predicted with a median error of"
        f" {median:.1%}, at most {max(errors):.1%}; {machine()['threads']} threads"
    )
    return {"factor": factor, "validation": {"median_error": median, "subnets": others}}
