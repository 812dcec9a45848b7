"""Evolution under constraints: the best subnet for each budget, all budgets in one compiled call.

As in the reference (`evolution_finder.py`): the best have children, half of them mutations, half
crossovers, and every child keeps the constraint. Here a generation is one step of a `lax.scan`,
constraints are a `vmap`, the start is feasible by construction, equal subnets count once, and the
parents are the best of all generations, twice as many as children.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.search.genes import Genome, crossover
from ofa_jax.space import Arch, SearchSpace

Function = Callable[[Arch, Any], Any]  # (arch, resolution) -> scalar, pure
TRIES = 4  # children drawn for one place; the first that keeps the constraint takes it


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
    check_settings(settings, least=4)
    check_functions(genome, {"score": score, **{f"cost {i}": c for i, c in enumerate(costs)}})
    limits = _limits(constraints, len(costs))
    start = feasible(genome, costs, limits)
    keys = jax.random.split(key, len(limits))
    state = _evolve(genome, score, costs, settings, keys, limits, start)
    if bool(state.broken.any()):
        raise ValueError(f"{name_of(score)} gave NaN for a subnet of {space.name}")
    genes = np.asarray(state.genes)
    return [
        _best(genome, score, costs, limits[i], [*genes[i], start[i]]) for i in range(len(limits))
    ]


def check_settings(settings: Settings, least: int) -> None:
    """Raises `ValueError` unless there are `least` children in a generation, and generations."""
    for field, minimum in (("population", least), ("generations", 1)):
        value = getattr(settings, field)
        if value < minimum:
            raise ValueError(f"{field}={value}: expected at least {minimum}")


def _limits(constraints: Sequence[Any], count: int) -> np.ndarray:
    """`[constraints, costs]` float64."""
    limits = np.asarray(constraints, np.float64)
    if count == 1 and limits.ndim == 1:
        limits = limits[:, None]
    if limits.ndim != 2 or limits.shape[1] != count or not limits.size:
        raise ValueError(f"constraints={constraints}: expected one or more, of {count} costs each")
    if np.isnan(limits).any():
        raise ValueError(f"constraints={constraints}: expected numbers")
    return limits


def check_functions(genome: Genome, functions: dict[str, Function]) -> None:
    """Raises `ValueError` unless each function gives one number for the ends of the space.

    They may refuse a resolution themselves.
    """
    for name, function in functions.items():
        for resolution in genome.resolutions:
            for arch in (genome.space.smallest(), genome.space.largest()):
                value = np.asarray(function(arch, resolution))
                if value.ndim or not np.isfinite(value):
                    raise ValueError(f"{name} {name_of(function)} gives {value} at {resolution} px:"
                                     " expected one finite number")  # fmt: skip


def name_of(function: Function) -> str:
    """How messages call a function."""
    return getattr(function, "__name__", type(function).__name__)


# -- the cheapest subnets ----------------------------------------------------------------------


def feasible(genome: Genome, costs: tuple[Function, ...], limits: np.ndarray) -> np.ndarray:
    """`[constraints, genes]`: a subnet within each of the constraints `[constraints, costs]`.

    Raises:
      ValueError: there is none, naming the cheapest subnet and its cost.
    """
    # With one cost the cheapest subnet is the same for all constraints, infinite ones too.
    asked_of = np.zeros((1, 1)) if len(costs) == 1 else limits
    found = np.asarray(cheapest(genome, costs, asked_of))
    found = np.broadcast_to(found, (len(limits), genome.length))
    for genes, limit in zip(found, limits, strict=True):
        spent = exactly(genome, costs, genes)
        if (spent > limit).any():
            arch, resolution = genome.decode(jnp.asarray(genes))
            asked, least = (
                float(v[0]) if len(costs) == 1 else tuple(v.tolist()) for v in (limit, spent)
            )
            raise ValueError(
                f"constraint {asked} cannot be met: the least is {least}, of"
                f" {genome.space.arch_to_dict(arch)} at {int(resolution)} px"
            )
    return found


def exactly(genome: Genome, functions: tuple[Function, ...], genes: Any) -> np.ndarray:
    """The functions' values outside of any transformation, where they are exact."""
    arch, resolution = genome.decode(jnp.asarray(genes))
    return np.asarray([float(f(arch, int(resolution))) for f in functions])


@functools.partial(jax.jit, static_argnums=(0, 1))
def cheapest(genome: Genome, costs: tuple[Function, ...], limits: jax.Array) -> jax.Array:
    """`[constraints, genes]`: what exceeds (or undercuts) each of the limits by least (by most).

    Descends from the smallest arch at each resolution, one choice after the other.
    """
    where, values = genome.neighbours()
    starts = jnp.stack([genome.encode(genome.space.smallest(), r) for r in genome.options[-1]])

    def descend(excess: Callable[[jax.Array], jax.Array], start: jax.Array) -> Any:
        def better(state: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
            genes, least, _ = state
            tried = jnp.tile(genes, (len(where), 1)).at[np.arange(len(where)), where].set(values)
            excesses = jax.vmap(excess)(tried)
            i = jnp.argmin(excesses)
            improved = excesses[i] < least
            genes = jnp.where(improved, tried[i], genes)
            return genes, jnp.minimum(excesses[i], least), improved

        began = (start, excess(start), jnp.asarray(True))
        return jax.lax.while_loop(lambda state: state[2], better, began)[:2]

    scale = jnp.abs(_values(genome, costs, starts[0])) + 1e-30

    def of_limit(limit: jax.Array) -> jax.Array:
        def excess(genes: jax.Array) -> jax.Array:
            return ((_values(genome, costs, genes) - limit) / scale).max()

        ends, least = jax.vmap(functools.partial(descend, excess))(starts)
        return ends[jnp.argmin(least)]

    return jax.vmap(of_limit)(limits)


def _values(genome: Genome, functions: tuple[Function, ...], genes: jax.Array) -> jax.Array:
    """`[functions]` float32 of one vector of genes."""
    arch, resolution = genome.decode(genes)
    return jnp.stack([jnp.asarray(f(arch, resolution), jnp.float32) for f in functions])


# -- evolution ---------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _evolve(
    genome: Genome,
    score: Function,
    costs: tuple[Function, ...],
    settings: Settings,
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
    return (_values(genome, costs, genes) <= limit).all()


def _first_generation(
    genome: Genome, fits: Any, settings: Settings, key: jax.Array, cheap: jax.Array
) -> jax.Array:
    """`[population, genes]` uniform draws, each moved towards the cheapest subnet until it fits."""
    shares = np.linspace(0, 1, 2 * TRIES + 1, dtype=np.float32)

    def one(key: jax.Array) -> jax.Array:
        words = jax.random.bits(key, (2, genome.length))
        drawn = genome.draw(words[0])
        order = words[1].astype(jnp.float32) / 2.0**32
        tried = jnp.where(order[None] < shares[:, None], cheap[None], drawn[None])
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
    words = jax.random.bits(key, (settings.population, TRIES, genome.length + 2))

    def drawn(words: jax.Array) -> tuple[jax.Array, jax.Array]:
        return parents[words[0] % len(parents)], words[2:]

    def mutation(words: jax.Array) -> jax.Array:
        parent, rest = drawn(words)
        return genome.mutate(rest, parent, settings.rate)

    def cross(words: jax.Array) -> jax.Array:
        parent, rest = drawn(words)
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
        scores=jnp.full(count, -jnp.inf),
        prints=jnp.zeros(count, jnp.uint32),
        broken=jnp.asarray(False),
    )


def _select(
    genome: Genome, score: Function, settings: Settings, parents: State, children: jax.Array
) -> State:
    """The best of parents and children, each subnet once."""
    scored = jax.vmap(lambda genes: _values(genome, (score,), genes)[0])(children)
    prints = jnp.concatenate([parents.prints, jax.vmap(genome.fingerprint)(children)])
    scores = jnp.concatenate([parents.scores, scored])
    genes = jnp.concatenate([parents.genes, children])
    earlier = np.tri(len(genes), k=-1, dtype=bool)
    again = ((prints[:, None] == prints[None, :]) & earlier).any(1)
    fresh = jnp.where(again | jnp.isnan(scores), -jnp.inf, scores)
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
        raise ValueError(f"{name_of(score)} gave NaN for a subnet of {genome.space.name}")
    given = float(spent[0]) if len(costs) == 1 else tuple(spent.tolist())
    return Found(arch, int(resolution), value, given)
