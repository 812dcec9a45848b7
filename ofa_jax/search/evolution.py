"""Evolution under constraints: the best subnet for each budget, all budgets in one compiled call.

As in the reference (`evolution_finder.py`): the best have children, half of them mutations, half
crossovers, and every child keeps the constraint. Here a generation is one step of a `lax.scan`,
constraints are a `vmap`, the start is feasible by construction, equal subnets count once, and the
parents are the best of all generations, twice as many as children.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.search.functions import (
    Function,
    as_pytree,
    check_functions,
    exactly,
    feasible,
    name_of,
    values,
)
from ofa_jax.search.genes import Genome, crossover, repeated
from ofa_jax.space import Arch, SearchSpace

FEWEST = 4  # children in a generation
TRIES = 4  # children sampled for one place; the first that keeps the constraint takes it


class Found(NamedTuple):
    """One result: the best subnet of a search within its constraint.

    `cost` is a number, or one for each of several costs.
    """

    arch: Arch
    resolution: int
    score: float
    cost: Any


class Settings(NamedTuple):
    """How an evolution goes: the reference's values, but for `parents`.

    The reference keeps a quarter of a population; with eight times as many, mean predicted top-1
    over seven latencies and five seeds rose from 81.98 to 82.07 %.
    """

    population: int = 100
    generations: int = 500
    parents: float = 2.0
    mutations: float = 0.5
    rate: float = 0.1

    @property
    def parent_count(self) -> int:
        """How many of a generation have children."""
        return max(round(self.parents * self.population), 2)


class State(NamedTuple):
    """The parents of one constraint, best first; `broken` once a score was NaN."""

    genes: jax.Array
    scores: jax.Array
    prints: jax.Array
    broken: jax.Array


def evolve(
    space: SearchSpace,
    score: Function,
    cost: Function | Sequence[Function],
    constraints: Sequence[Any],
    *,
    resolutions: Sequence[int] | None = None,
    key: jax.Array,
    population: int = 100,
    generations: int = 500,
) -> list[Found]:
    """The best subnet of `space` within each constraint.

    Args:
      space: where to search.
      score: what to maximise; a pure function of one arch and a resolution, as `load_predictor`
        gives.
      cost: what is constrained, likewise: `load_latency_table` or `macs`; or several of them.
      constraints: the most each result may cost; with several costs a tuple each.
      resolutions: pixels to choose from; default the space's own.
      key: a JAX key; equal keys give equal results.
      population: children in a generation.
      generations: how many.

    Returns:
      One `Found` for each constraint, in their order.

    Raises:
      ValueError: a constraint below what is achievable, with the cheapest subnet; a score or cost
        that is NaN or no scalar; a resolution that a cost or score does not know.
    """
    costs = tuple(cost) if isinstance(cost, Sequence) else (cost,)
    sizes = tuple(space.resolutions if resolutions is None else resolutions)
    genome = Genome(space, sizes)
    settings = Settings(population, generations)
    check_settings(settings, least=FEWEST)
    check_functions(genome, {"score": score, **{f"cost {i}": c for i, c in enumerate(costs)}})
    limits = _limits(constraints, len(costs))
    start = feasible(genome, costs, limits)
    keys = jax.random.split(key, len(limits))
    bounds = limits.astype(np.float32)  # what costs are compared in; the results, exactly
    trees = as_pytree(score), tuple(map(as_pytree, costs))
    state = _evolve(genome, settings, *trees, keys, bounds, start)
    if bool(state.broken.any()):
        raise InputError(f"{name_of(score)} gave NaN for a subnet of {space.name}")
    genes = np.asarray(state.genes)
    return [
        _best(genome, score, costs, limits[i], [*genes[i], start[i]]) for i in range(len(limits))
    ]


def check_cost(
    space: SearchSpace, cost: Function, constraints: Sequence[float], resolutions: Sequence[int]
) -> None:
    """Raises `ValueError` where `evolve` would, for want of a subnet within the constraints."""
    genome = Genome(space, tuple(resolutions))
    check_functions(genome, {"cost": cost})
    if constraints:
        feasible(genome, (cost,), _limits(constraints, 1))


def check_settings(settings: Settings, least: int) -> None:
    """Raises `ValueError` unless there are `least` children in a generation, and generations."""
    for field, minimum in (("population", least), ("generations", 1)):
        value = getattr(settings, field)
        if value < minimum:
            raise InputError(f"{field}={value}: expected at least {minimum}")


def _limits(constraints: Sequence[Any], count: int) -> np.ndarray:
    """`[constraints, costs]` float64."""
    limits = np.asarray(constraints, np.float64)
    if count == 1 and limits.ndim == 1:
        limits = limits[:, None]
    if limits.ndim != 2 or limits.shape[1] != count or not limits.size:
        raise InputError(f"constraints={constraints}: expected one or more, of {count} costs each")
    if np.isnan(limits).any():
        raise InputError(f"constraints={constraints}: expected numbers")
    return limits


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evolve(
    genome: Genome,
    settings: Settings,
    score: Function,
    costs: tuple[Function, ...],
    keys: jax.Array,
    limits: jax.Array,
    starts: jax.Array,
) -> State:
    """The last parents of every constraint, stacked."""

    def of_constraint(key: jax.Array, limit: jax.Array, cheap: jax.Array) -> State:
        fits = functools.partial(_fits, genome, costs, limit)
        start_key, key = jax.random.split(key)
        genes = _first_generation(genome, fits, settings, start_key, cheap)
        state = _select(genome, score, settings, _no_parents(genome, settings), genes)

        def generation(state: State, key: jax.Array) -> tuple[State, None]:
            children = _children(genome, fits, settings, key, state.genes)
            return _select(genome, score, settings, state, children), None

        return jax.lax.scan(generation, state, jax.random.split(key, settings.generations))[0]

    return jax.vmap(of_constraint)(keys, limits, starts)


def _fits(
    genome: Genome, costs: tuple[Function, ...], limit: jax.Array, genes: jax.Array
) -> jax.Array:
    return (values(genome, costs, genes) <= limit).all()


def _first_generation(
    genome: Genome, fits: Any, settings: Settings, key: jax.Array, cheap: jax.Array
) -> jax.Array:
    """`[population, genes]` uniform draws, each moved towards the cheapest subnet until it fits."""
    shares = np.linspace(0, 1, 2 * TRIES + 1, dtype=np.float32)

    def one(key: jax.Array) -> jax.Array:
        words = jax.random.bits(key, (2, genome.length), jnp.uint32)
        sampled = genome.draw(words[0])
        order = words[1].astype(jnp.float32) / 2.0**32
        tried = jnp.where(order[None] < shares[:, None], cheap[None], sampled[None])
        return first_that(jax.vmap(fits)(tried), tried, cheap)

    return jax.vmap(one)(jax.random.split(key, settings.population))


def first_that(good: jax.Array, tried: jax.Array, otherwise: jax.Array) -> jax.Array:
    """The first of those `tried` that is good, else `otherwise`."""
    return jnp.where(good.any(), tried[jnp.argmax(good)], otherwise)


def _children(
    genome: Genome, fits: Any, settings: Settings, key: jax.Array, parents: jax.Array
) -> jax.Array:
    """`[population, genes]`: mutations of parents first, then crossovers of two."""
    mutations = round(settings.mutations * settings.population)
    shape = (settings.population, TRIES, genome.length + 2)
    words = jax.random.bits(key, shape, jnp.uint32)

    def sampled_parent(words: jax.Array) -> tuple[jax.Array, jax.Array]:
        return parents[words[0] % len(parents)], words[2:]

    def mutation(words: jax.Array) -> jax.Array:
        parent, rest = sampled_parent(words)
        return genome.mutate(rest, parent, settings.rate)

    def cross(words: jax.Array) -> jax.Array:
        parent, rest = sampled_parent(words)
        return crossover(rest, parent, parents[words[1] % len(parents)])

    def first_fitting(make: Any, words: jax.Array) -> jax.Array:
        tried = jax.vmap(make)(words)
        return first_that(jax.vmap(fits)(tried), tried, parents[0])

    return jnp.concatenate([
        jax.vmap(functools.partial(first_fitting, mutation))(words[:mutations]),
        jax.vmap(functools.partial(first_fitting, cross))(words[mutations:]),
    ])  # fmt: skip


def _no_parents(genome: Genome, settings: Settings) -> State:
    count = settings.parent_count
    return State(
        genes=jnp.zeros((count, genome.length), jnp.int32),
        scores=jnp.full(count, -jnp.inf, jnp.float32),
        prints=jnp.zeros(count, jnp.uint32),
        broken=jnp.asarray(False),
    )


def _select(
    genome: Genome, score: Function, settings: Settings, parents: State, children: jax.Array
) -> State:
    """The best of parents and children, each subnet once."""
    scored = jax.vmap(lambda genes: values(genome, (score,), genes)[0])(children)
    prints = jnp.concatenate([parents.prints, jax.vmap(genome.fingerprint)(children)])
    scores = jnp.concatenate([parents.scores, scored])
    genes = jnp.concatenate([parents.genes, children])
    fresh = jnp.where(repeated(prints) | jnp.isnan(scores), -jnp.inf, scores)
    best, order = jax.lax.top_k(fresh, settings.parent_count)
    broken = parents.broken | jnp.isnan(scored).any()
    return State(genes[order], best, prints[order], broken)


def _best(
    genome: Genome,
    score: Function,
    costs: tuple[Function, ...],
    limit: np.ndarray,
    ranked: Sequence[np.ndarray],
) -> Found:
    """The first of the ranked subnets whose exact cost keeps the limit: float32 sums may round."""
    for genes in ranked:
        spent = exactly(genome, costs, genes)
        if (spent <= limit).all():
            break
    arch, resolution = genome.decode(jnp.asarray(genes))
    value = float(score(arch, int(resolution)))
    if math.isnan(value):
        raise InputError(f"{name_of(score)} gave NaN for a subnet of {genome.space.name}")
    exact_cost = float(spent[0]) if len(costs) == 1 else tuple(spent.tolist())
    return Found(arch, int(resolution), value, exact_cost)
