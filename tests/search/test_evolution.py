"""Evolution and front, against brute force where every subnet can be counted."""

import dataclasses
import functools
import gc
import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ofa_jax
from ofa_jax import search
from ofa_jax.families import MobileNetSpace
from ofa_jax.search import evolution, functions, predictor
from ofa_jax.search import front as front_lib
from ofa_jax.search.genes import Genome, crossover
from ofa_jax.search.latency import latency_table, parts
from ofa_jax.search.memory import activation_bytes
from ofa_jax.space import Arch, Stage

KEY = jax.random.key(0)
SIZES = (16, 24)


@pytest.fixture(scope="module")
def few():
    """A space of (9 + 81) ** 2 subnets."""
    stages = (Stage(16, 2), Stage(24, 2))
    return MobileNetSpace(name="few", stem=8, first=8, stages=stages, head=32, features=0,
                          depths=(1, 2), resolutions=SIZES, num_classes=10)  # fmt: skip


@pytest.fixture(scope="module")
def everything(few):
    """All its subnets: archs, resolutions, scores, MACs."""
    genes = list(itertools.product(range(3), repeat=4))
    archs = [Arch(np.asarray(k), np.asarray(e), np.asarray(d)) for k in genes for e in genes
             for d in itertools.product(range(2), repeat=2)]  # fmt: skip
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.int32), *archs)
    score = make_score(few)
    found = []
    for size in SIZES:
        scores = np.asarray(jax.jit(jax.vmap(functools.partial(score, resolution=size)))(stacked))
        found.append((scores, ofa_jax.macs(few, stacked, size)))
    scores, macs = (np.concatenate(values) for values in zip(*found, strict=True))
    return scores, macs


def make_score(space):
    """A rugged score in [0, 1] of choices that count, with interactions between neighbours."""
    rng = np.random.default_rng(0)
    count = len(space.blocks)
    single, double = rng.normal(size=(count, 3, 3)), rng.normal(size=(count - 1, 3, 3))

    def score(arch, resolution):
        active = jnp.asarray(space.active(arch.depth))
        own = jnp.asarray(single)[np.arange(count), arch.kernel, arch.expand]
        pairs = jnp.asarray(double)[np.arange(count - 1), arch.kernel[:-1], arch.expand[1:]]
        total = (own * active).sum() + (pairs * active[:-1] * active[1:]).sum()
        return jax.nn.sigmoid(0.2 * total + 0.02 * (resolution - 20))

    return score


def cost_of(space):
    return functools.partial(ofa_jax.macs, space)


def test_evolution_equals_brute_force(few, everything):
    scores, macs = everything
    limits = np.quantile(macs, [0.0, 0.01, 0.1, 0.5, 1.0], method="nearest")
    found = search.evolve(few, make_score(few), cost_of(few), limits, key=KEY, generations=100)
    for one, limit in zip(found, limits, strict=True):
        assert one.score == pytest.approx(scores[macs <= limit].max(), abs=1e-6)
        assert one.cost == ofa_jax.macs(few, one.arch, one.resolution) <= limit


def test_front_equals_brute_force(few, everything):
    scores, macs = everything
    front = search.find_front(few, make_score(few), cost_of(few), key=KEY, generations=200)
    order = np.lexsort((-scores, macs))
    best = np.maximum.accumulate(scores[order])
    expected = order[np.r_[True, best[1:] > best[:-1]]]
    np.testing.assert_array_equal([f.cost for f in front.found], macs[expected])
    np.testing.assert_allclose([f.score for f in front.found], scores[expected], atol=1e-6)
    widths = np.diff([*macs[expected], macs.max()])
    area = (widths * scores[expected]).sum() / macs.max()
    assert front.hypervolume == pytest.approx(area, abs=1e-5)
    again = search.find_front(few, make_score(few), cost_of(few), key=KEY, generations=200)
    assert [f.cost for f in again.found] == [f.cost for f in front.found]
    with pytest.raises(ValueError, match="cannot be met: the least is"):
        search.best_within(front.found, front.found[0].cost - 1)
    assert search.best_within(front.found, 1e12) is front.found[-1]


def test_several_costs(few, everything):
    scores, macs = everything
    params = functools.partial(lambda arch, resolution: ofa_jax.params(few, arch))
    limits = [(np.median(macs), 6000), (macs.max(), 1e9)]
    found = search.evolve(
        few, make_score(few), (cost_of(few), params), limits, key=KEY, generations=100
    )
    assert found[0].cost[0] <= np.median(macs)
    assert found[0].cost[1] == ofa_jax.params(few, found[0].arch) <= 6000
    assert found[1].score == pytest.approx(scores.max(), abs=1e-6)
    with pytest.raises(ValueError, match=r"constraint \(.*\) cannot be met: the least is \("):
        search.evolve(few, make_score(few), (cost_of(few), params), [(1e9, 100)], key=KEY)
    with pytest.raises(ValueError, match="of 2 costs each"):
        search.evolve(few, make_score(few), (cost_of(few), params), [1e9], key=KEY)


def test_an_impossible_constraint_names_the_cheapest(few, everything):
    least = everything[1].min()
    with pytest.raises(
        ValueError, match=rf"{least - 1}.* least is {float(least)}, of .*'d': \[1, 1"
    ):
        search.evolve(few, make_score(few), cost_of(few), [1e9, least - 1], key=KEY)
    (found,) = search.evolve(few, make_score(few), cost_of(few), [least], key=KEY, generations=2)
    assert found.cost == least


def test_wrong_scores_are_refused(few):
    def broken(arch, resolution):
        return jnp.where(arch.kernel[0] == 1, jnp.nan, 0.5)

    with pytest.raises(ValueError, match="broken gave NaN for a subnet of few"):
        search.evolve(few, broken, cost_of(few), [1e9], key=KEY, generations=3)
    with pytest.raises(ValueError, match="broken or partial gave NaN"):
        search.find_front(few, broken, cost_of(few), key=KEY, generations=3)
    with pytest.raises(ValueError, match=r"score <lambda> gives nan at 16 px"):
        search.evolve(few, lambda arch, resolution: jnp.nan, cost_of(few), [1e9], key=KEY)
    with pytest.raises(ValueError, match="expected one finite number"):
        search.evolve(few, lambda arch, resolution: arch.kernel, cost_of(few), [1e9], key=KEY)
    with pytest.raises(ValueError, match="constraints=.*expected one or more"):
        search.evolve(few, make_score(few), cost_of(few), [], key=KEY)
    with pytest.raises(ValueError, match="population=2: expected at least 4"):
        search.evolve(few, make_score(few), cost_of(few), [1e9], key=KEY, population=2)
    with pytest.raises(ValueError, match="resolutions=.*ascending"):
        search.evolve(few, make_score(few), cost_of(few), [1e9], key=KEY, resolutions=(24, 16))


def test_skipped_blocks_never_matter(few):
    genome = Genome(few, SIZES)
    arch = few.smallest()  # blocks 1 and 3 are skipped
    genes = genome.encode(arch, 1)
    changed = genes.at[np.asarray([1, 3, 5, 7])].set(2)
    assert (genome.fingerprint(genes) == genome.fingerprint(changed)).all()
    for one, other in zip(*map(jax.tree.leaves, map(genome.decode, (genes, changed))), strict=True):
        np.testing.assert_array_equal(one, other)
    assert genome.fingerprint(genes) != genome.fingerprint(genes.at[0].set(1))


def test_mutation_and_crossover(space):
    genome = Genome(space, (128, 160, 192))
    words = jax.random.bits(KEY, (2000, genome.length))
    sampled = np.asarray(jax.vmap(genome.draw)(words))
    for gene, options in enumerate(genome.options):
        values, counts = np.unique(sampled[:, gene], return_counts=True)
        assert tuple(values) == options
        assert counts.min() > 0.85 * len(sampled) / len(options)
    parent = genome.encode(space.largest(), 0)
    mutated = jax.vmap(lambda w: genome.mutate(w, parent, 0.1))(words)
    chances = np.asarray([1 - 1 / len(o) for o in genome.options])
    changed = np.asarray(mutated != parent[None]).mean(0)
    np.testing.assert_allclose(changed, 0.1 * chances, atol=0.025)
    other = genome.encode(space.smallest(), 2)
    crossed = np.asarray(jax.vmap(lambda w: crossover(w, parent, other))(words))
    differ = np.asarray(parent != other)
    np.testing.assert_array_equal(
        crossed[:, ~differ], np.asarray(parent)[None, ~differ].repeat(2000, 0)
    )
    shares = (crossed == np.asarray(parent)[None]).mean(0)[differ]
    np.testing.assert_allclose(shares, 0.5, atol=0.05)


def predictor_of(space, seed):
    """One of random weights, which is as good as any other to compile for."""
    bins = tuple((size, size + 1) for size in SIZES)
    net, count = predictor.MLP((8,)), predictor.feature_count(space, bins)
    params = net.init(jax.random.key(seed), np.zeros(count, np.float32))["params"]
    return search.Predictor(space, bins, params, {"seed": seed})


def table_of(space, seed):
    """One of random milliseconds."""
    rng, milliseconds = np.random.default_rng(seed), {}
    for size in SIZES:
        pieces = [piece for part in parts(space, size) for piece in part.pieces.flat]
        milliseconds[size] = {piece.key: rng.uniform(1, 2) for piece in pieces}
    return latency_table(space, milliseconds, "random", {"seed": seed})


def programs():
    """How many programs the searches have compiled so far."""
    jitted = (evolution._evolve, functions.cheapest, front_lib._climb)
    return [function._cache_size() for function in jitted]


def test_another_predictor_or_table_is_no_new_compilation(few):
    def run(seed):
        score, cost = predictor_of(few, seed), table_of(few, seed)
        budget = cost(few.largest(), SIZES[-1]) * 0.8
        (found,) = search.evolve(few, score, cost, [budget], key=KEY, generations=3)
        front = search.find_front(few, score, cost, key=KEY, generations=2, population=128)
        for one in (found, *front.found):
            assert one.score == float(score(one.arch, one.resolution))
            assert one.cost == cost(one.arch, one.resolution)
        assert found.cost <= budget
        return found

    before = programs()
    first = run(0)
    compiled = programs()
    assert [b - a for a, b in zip(before, compiled, strict=True)] == [1, 1, 1]
    second = run(1)
    assert programs() == compiled
    assert first.score != second.score


def test_equal_costs_are_one_compilation_and_others_are_not(few):
    score = predictor_of(few, 0)

    def run(cost):
        search.evolve(few, score, cost, [1e9], key=KEY, generations=3, population=8)

    run(cost_of(few))
    compiled = programs()
    run(cost_of(few))  # another `partial` of the same function and space
    run(functools.partial(ofa_jax.macs, dataclasses.replace(few)))  # an equal space
    assert programs() == compiled
    run(functools.partial(activation_bytes, few))
    assert programs()[0] == compiled[0] + 1


def test_arrays_of_a_users_function_are_arguments_too(few):
    def score(weights, arch, resolution):
        return jax.nn.sigmoid((weights * arch.expand).sum())

    rng = np.random.default_rng(0)
    for attempt in range(2):
        weights = jnp.asarray(rng.normal(size=len(few.blocks)), jnp.float32)
        bound = jax.tree_util.Partial(score, weights)
        (found,) = search.evolve(few, bound, cost_of(few), [1e9], key=KEY, generations=20)
        best = weights * jnp.where(weights > 0, 2, 0)
        assert found.score == pytest.approx(float(jax.nn.sigmoid(best.sum())), abs=1e-6)
        if attempt == 0:
            compiled = programs()
    assert programs() == compiled


def test_an_unhashable_argument_is_part_of_the_program(few):
    def score(weights, arch, resolution):
        return jax.nn.sigmoid((np.asarray(weights) * arch.expand).sum())

    bound = functools.partial(score, [1.0, -1.0, 1.0, -1.0])
    (found,) = search.evolve(few, bound, cost_of(few), [1e9], key=KEY, generations=20)
    assert found.score == pytest.approx(float(jax.nn.sigmoid(4.0)), abs=1e-6)


def test_a_search_keeps_no_weights(few):
    score = predictor_of(few, 2)
    kept = [weakref.ref(leaf) for leaf in jax.tree.leaves(score)]
    search.evolve(few, score, cost_of(few), [1e9], key=KEY, generations=3)
    del score
    gc.collect()
    assert [one() for one in kept] == [None] * 4
