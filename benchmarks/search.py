"""Search by predictor and latency table: one constraint, sixteen in one call, the whole front.

    pip install -e ".[bench]"
    python -m benchmarks.search --data=DIRECTORY --against-once-for-all

`--data` has the reference's published predictor (`acc_predictor_mbv3.npz`) and its latency tables
of the Note10 (`note10/*.yaml`). The reference's own search (`EvolutionFinder`) runs with the same
two, at the same population and generations. The first call of each compiles, and
is reported separately.
"""

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from ofa_jax import get_space, search

RESOLUTIONS = (160, 176, 192, 208, 224)
SPREAD = np.linspace(13.0, 60.0, 16)
LIMITS = (15.0, 25.0, 40.0)


def arithmetic(score: search.Predictor, population: int, generations: int) -> float:
    """Seconds of the predictor's matrix products alone, as many as one search needs."""
    layers = [jnp.asarray(layer["kernel"]) for layer in score.params.values()]
    x = jnp.ones((population, layers[0].shape[0]))

    @jax.jit
    def products(x: jax.Array) -> Any:
        def one(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            y = x
            for kernel in layers:
                y = jax.nn.relu(y @ kernel)
            return x + 1e-9 * y, y.max()

        return jax.lax.scan(one, x, None, length=generations)

    return statistics.median(harness.timed(lambda: products(x), 3))


def searcher(data: Path, args: argparse.Namespace) -> Any:
    """`evolve` with everything but constraints and key given; and its two functions."""
    space = get_space("ofa_mbv3_d234_e346_k357_w1.2")
    score = search.load_predictor(data / "acc_predictor_mbv3.npz", space)
    cost = search.load_latency_table(data / "note10", space)

    def evolve(constraints: Any, seed: int) -> list[search.Found]:
        return search.evolve(
            space, score, cost, constraints, resolutions=RESOLUTIONS, key=jax.random.key(seed),
            population=args.population, generations=args.generations,
        )  # fmt: skip

    def front(seed: int) -> search.Front:
        return search.find_front(space, score, cost, resolutions=RESOLUTIONS,
                                 key=jax.random.key(seed))  # fmt: skip

    return score, evolve, front


def seconds(call: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def reference(data: Path, limit: float, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds and predicted top-1 of one search of the reference."""
    from benchmarks.once_for_all import evolution_finder

    finder = evolution_finder(data, RESOLUTIONS, limit, args.population, args.generations)
    took, (values, _) = seconds(finder.run_evolution_search)
    return took, values[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--population", type=int, default=100)
    parser.add_argument("--generations", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--against-once-for-all", action="store_true")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    if args.against_once_for_all:
        harness.needs("torch", "ofa")
    score, evolve, front = searcher(args.data, args)
    figures: dict[str, Any] = {"arguments": {**vars(args), "data": str(args.data)}}

    first, _ = seconds(lambda: evolve(LIMITS[:1], 0))
    ours: dict[float, list[float]] = {limit: [] for limit in LIMITS}
    theirs: dict[float, list[float]] = {limit: [] for limit in LIMITS}
    times: dict[str, list[float]] = {"ofa_jax": [], "once-for-all": []}
    for seed in range(args.seeds):
        for limit in LIMITS:
            took, found = seconds(lambda limit=limit, seed=seed: evolve((limit,), seed))
            times["ofa_jax"].append(took)
            ours[limit].append(found[0].score)
            if args.against_once_for_all and seed < 2:
                random.seed(seed)
                np.random.seed(seed)
                took, value = reference(args.data, limit, args)
                times["once-for-all"].append(took)
                theirs[limit].append(value)
    one = statistics.median(times["ofa_jax"])
    products = arithmetic(score, args.population, args.generations)
    print(f"one constraint: {one:.2f} s, {first:.1f} s with compilation; the predictor's matrix"
          f" products alone {products:.2f} s")  # fmt: skip
    figures |= {"one": one, "first": first, "products": products}
    if times["once-for-all"]:
        other = statistics.median(times["once-for-all"])
        print(f"once-for-all: {other:.2f} s, {other / one:.1f} times as long")
        figures |= {"once-for-all": other}
    for limit in LIMITS:
        line = f"within {limit:g} ms: mean {np.mean(ours[limit]):.2%} of {args.seeds} seeds"
        if theirs[limit]:
            line += f"; once-for-all {np.mean(theirs[limit]):.2%} of {len(theirs[limit])}"
        print(line)
    figures |= {"scores": ours, "once-for-all scores": theirs}

    evolve(SPREAD, 0)
    both, found = seconds(lambda: evolve(SPREAD, 1))
    singles = sum(seconds(lambda limit=limit: evolve((limit,), 1))[0] for limit in SPREAD)
    print(f"16 constraints: {both:.2f} s in one call, {singles:.2f} s in 16")
    first, _ = seconds(lambda: front(0))
    took, whole = seconds(lambda: front(1))
    lacks = [one.score - search.best_within(whole.found, limit).score
             for one, limit in zip(found, SPREAD, strict=True)]  # fmt: skip
    again = [a.score - b.score for a, b in zip(evolve(SPREAD, 2), found, strict=True)]
    print(
        f"front of {len(whole.found)}: {took:.2f} s, {first:.1f} s with compilation; below the 16"
        f" by {max(lacks):.2%} points at most, {np.mean(lacks):.2%} on average (16 of another seed:"
        f" {-min(again):.2%}, {-np.mean(again):.2%})"
    )
    figures |= {"sixteen": both, "sixteen singles": singles, "front": took, "front lacks": lacks}
    harness.finish(args.json, figures)


if __name__ == "__main__":
    main()
