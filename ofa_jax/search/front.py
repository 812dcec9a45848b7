"""The front: every subnet that no other beats in both score and cost, by one compiled call.

A ladder of constraints from the cheapest subnet to the dearest; each rung evolves parents of its
own that keep it, and children compete on their rung and those beside it. The front is taken from
all subnets ever evaluated. NSGA-II was tried first and ended up to 0.6 points below single
searches; the ladder is above them on average.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.search.evolution import TRIES, Found, Settings, check_settings, first_that
from ofa_jax.search.functions import (
    Function,
    as_pytree,
    cheapest,
    check_functions,
    exactly,
    name_of,
    values,
)
from ofa_jax.search.genes import Genome, crossover, repeated
from ofa_jax.space import SearchSpace

RUNGS = 64
FEWEST_OF_FRONT = 2 * RUNGS  # children in a generation


class Front(NamedTuple):
    """The result of a search for the front.

    Attributes:
      found: the front's subnets, cheapest first.
      hypervolume: the area that they dominate, as a share of that up to the dearest subnet seen
        and score 1.
      seen: `[subnets, 2]` cost and score of all evaluated subnets.
    """

    found: list[Found]
    hypervolume: float
    seen: np.ndarray


class Parents(NamedTuple):
    """Of one rung or, stacked, of all: genes, scores and fingerprints, best first."""

    genes: jax.Array
    scores: jax.Array
    prints: jax.Array


class Children(NamedTuple):
    """Evaluated subnets: `[..., genes]` int8, and `[...]` of each value."""

    genes: jax.Array
    scores: jax.Array
    costs: jax.Array


def find_front(
    space: SearchSpace,
    score: Function,
    cost: Function,
    *,
    resolutions: Sequence[int] | None = None,
    key: jax.Array,
    population: int = 3200,
    generations: int = 500,
) -> Front:
    """The front of `score` against `cost`; arguments as `evolve`'s, `population` over all rungs.

    Raises:
      ValueError: a score or cost that is NaN or no scalar; a resolution that it does not know.
    """
    genome = Genome(space, tuple(space.resolutions if resolutions is None else resolutions))
    settings = Settings(population, generations)
    check_settings(settings, least=FEWEST_OF_FRONT)
    check_functions(genome, {"score": score, "cost": cost})
    trees = as_pytree(score), as_pytree(cost)
    start = np.asarray(cheapest(genome, trees[1:], np.zeros((1, 1), np.float32)))[0]
    limits = _ladder(genome, cost, start).astype(np.float32)
    born = _climb(genome, settings, *trees, key, limits, start)
    genes, scores, costs = (np.asarray(leaf).reshape(-1, *leaf.shape[2:]) for leaf in born)
    if np.isnan(scores).any() or np.isnan(costs).any():
        raise InputError(
            f"{name_of(score)} or {name_of(cost)} gave NaN for a subnet of {space.name}"
        )
    candidates = [_result(genome, score, cost, g) for g in genes[_leading(scores, costs)]]
    front = undominated(candidates)
    return Front(front, hypervolume(front, float(costs.max())), np.stack([costs, scores], -1))


def _ladder(genome: Genome, cost: Function, start: np.ndarray) -> np.ndarray:
    """`[rungs]` constraints, each the same share above the one before where costs are positive."""
    dearest = genome.encode(genome.space.largest(), len(genome.resolutions) - 1)
    least, most = (exactly(genome, (cost,), genes)[0] for genes in (start, dearest))
    spaced = np.geomspace if least > 0 else np.linspace
    return spaced(least, max(most, least), RUNGS)


def _leading(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Indices of the undominated, cheapest first."""
    order = np.lexsort((-scores, costs))
    ahead = np.maximum.accumulate(scores[order])
    return order[np.r_[True, ahead[1:] > ahead[:-1]]]


def _result(genome: Genome, score: Function, cost: Function, genes: np.ndarray) -> Found:
    arch, resolution = genome.decode(jnp.asarray(genes, jnp.int32))
    value, spent = exactly(genome, (score, cost), jnp.asarray(genes, jnp.int32))
    return Found(arch, int(resolution), float(value), float(spent))


def undominated(candidates: Sequence[Found]) -> list[Found]:
    """Those that no other beats in score at the same cost or less, cheapest first."""
    front: list[Found] = []
    for one in sorted(candidates, key=lambda f: (f.cost, -f.score)):
        if not front or one.score > front[-1].score:
            front.append(one)
    return front


def hypervolume(front: Sequence[Found], dearest: float) -> float:
    """The area that a front dominates, as a share of that up to cost `dearest` and score 1."""
    ends = [*(f.cost for f in front[1:]), dearest]
    area = sum(f.score * max(end - f.cost, 0) for f, end in zip(front, ends, strict=True))
    return area / dearest


def best_within(front: Sequence[Found], limit: float) -> Found:
    """The best of a front that costs at most `limit`.

    Raises:
      ValueError: none does.
    """
    within = [f for f in front if f.cost <= limit]
    if not within:
        raise InputError(f"constraint {limit} cannot be met: the least is {front[0].cost}")
    return within[-1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _climb(
    genome: Genome,
    settings: Settings,
    score: Function,
    cost: Function,
    key: jax.Array,
    limits: jax.Array,
    start: jax.Array,
) -> Children:
    """All children, `[1 + generations, population, ...]`."""
    each = settings.population // len(limits)
    count = each * len(limits)
    start_key, key = jax.random.split(key)
    sampled = jax.vmap(genome.draw)(jax.random.bits(start_key, (count, genome.length), jnp.uint32))
    shape = (len(limits), round(settings.parents * each))
    nobody = Parents(
        genes=jnp.broadcast_to(start, (*shape, genome.length)),
        scores=jnp.full(shape, -jnp.inf, jnp.float32),
        prints=jnp.zeros(shape, jnp.uint32),
    )
    # The first generation competes everywhere, and the cheapest subnet is one of it.
    ends = jnp.stack([start, genome.encode(genome.space.largest(), genome.options[-1][-1])])
    compete = functools.partial(_compete, genome, score, cost, limits)
    parents, first = compete(len(limits), nobody, sampled.at[:2].set(ends))

    def generation(parents: Parents, key: jax.Array) -> tuple[Parents, Children]:
        words = jax.random.bits(key, (len(limits), each, TRIES, genome.length + 4), jnp.uint32)
        of_rung = functools.partial(_children, genome, cost, settings, parents.genes)
        children = jax.vmap(of_rung)(jnp.arange(len(limits), dtype=jnp.int32), limits, words)
        return compete(1, parents, children.reshape(count, genome.length))

    _, later = jax.lax.scan(generation, parents, jax.random.split(key, settings.generations))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)


def _children(
    genome: Genome,
    cost: Function,
    settings: Settings,
    parents: jax.Array,
    rung: jax.Array,
    limit: jax.Array,
    words: jax.Array,
) -> jax.Array:
    """`[each, genes]` of a rung: mutations, and crossovers with a parent of it or one beside it."""

    def tried(words: jax.Array) -> tuple[jax.Array, jax.Array]:
        head, rest = words[:4], words[4:]
        first = parents[rung, head[0] % parents.shape[1]]
        beside = jnp.clip(rung + (head[1] % 3).astype(jnp.int32) - 1, 0, len(parents) - 1)
        second = parents[beside, head[2] % parents.shape[1]]
        mutated = genome.mutate(rest, first, settings.rate)
        child = jnp.where(head[3] % 2 == 0, mutated, crossover(rest, first, second))
        return child, values(genome, (cost,), child)[0] <= limit

    def one(words: jax.Array) -> jax.Array:
        children, fits = jax.vmap(tried)(words)
        return first_that(fits, children, parents[rung, 0])

    return jax.vmap(one)(words)


def _compete(
    genome: Genome,
    score: Function,
    cost: Function,
    limits: jax.Array,
    reach: int,
    parents: Parents,
    children: jax.Array,
) -> tuple[Parents, Children]:
    """The best of each rung: its parents, and the children born within `reach` that keep it."""
    scores, costs = jax.vmap(functools.partial(values, genome, (score, cost)))(children).T
    prints = jax.vmap(genome.fingerprint)(children)
    fresh = jnp.where(repeated(prints) | jnp.isnan(scores), -jnp.inf, scores)
    born_on = np.arange(len(children)) // (len(children) // len(limits))

    def of_rung(rung: jax.Array, limit: jax.Array, own: Parents) -> Parents:
        known = (prints[:, None] == own.prints[None, :]).any(1)
        barred = known | (jnp.abs(born_on - rung) > reach) | (costs > limit)
        rivals = jnp.concatenate([own.scores, jnp.where(barred, -jnp.inf, fresh)])
        best, order = jax.lax.top_k(rivals, len(own.scores))
        genes = jnp.concatenate([own.genes, children])[order]
        return Parents(genes, best, jnp.concatenate([own.prints, prints])[order])

    parents = jax.vmap(of_rung)(jnp.arange(len(limits), dtype=jnp.int32), limits, parents)
    return parents, Children(children.astype(jnp.int8), scores, costs)
