"""Evolution and front, against brute force where every subnet can be counted."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ofa_jax
from ofa_jax import search
from ofa_jax.families import MobileNetSpace
from ofa_jax.search.genes import Genome, crossover
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
    drawn = np.asarray(jax.vmap(genome.draw)(words))
    for gene, options in enumerate(genome.options):
        values, counts = np.unique(drawn[:, gene], return_counts=True)
        assert tuple(values) == options
        assert counts.min() > 0.85 * len(drawn) / len(options)
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
