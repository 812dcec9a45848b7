import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ofa_jax
from ofa_jax.space import SearchSpace, make_divisible, stack


def test_the_published_spaces_have_the_papers_dimensions():
    space = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.0")
    assert space.size == (9**2 + 9**3 + 9**4) ** 5  # about 2e19, as the paper says
    assert len(space.blocks) == 20
    assert [b.width for b in space.blocks[::4]] == [24, 40, 80, 112, 160]
    assert [b.stride for b in space.blocks[::4]] == [2, 2, 2, 1, 2]
    assert [bool(b.squeezes) for b in space.blocks[::4]] == [False, True, False, True, True]
    assert space.blocks[0].mids == (48, 64, 96)  # of the 16 channels before, not of its own 24
    assert space.blocks[1].mids == (72, 96, 144)
    assert space.blocks[4].squeezes == (24, 24, 40)  # make_divisible(mid // 4), mids 72, 96, 144
    wide = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.2")
    assert [wide.stem, wide.head, wide.features] == [24, 1152, 1536]
    assert [b.width for b in wide.blocks[::4]] == [32, 48, 96, 136, 192]
    proxyless = ofa_jax.get_space("ofa_proxyless_d234_e346_k357_w1.3")
    assert [proxyless.stem, proxyless.first, proxyless.head] == [40, 24, 1664]
    assert [b.width for b in proxyless.blocks[::4]] == [32, 56, 104, 128, 248, 416]
    assert proxyless.size == (9**2 + 9**3 + 9**4) ** 5 * 9
    assert not proxyless.first_block.residual


def test_a_stage_of_fixed_depth_takes_any():
    """The reference samples a depth for the last ProxylessNAS stage, and ignores it."""
    space = ofa_jax.get_space("ofa_proxyless_d234_e346_k357_w1.3")
    for last in (1, 3):
        arch = space.arch_from_dict({"ks": 3, "e": 6, "d": [2, 3, 4, 2, 2, last]})
        values = space.arch_to_dict(arch)
        assert values["d"] == [2, 3, 4, 2, 2, 1]
        assert values["ks"][-1] == 3
    sampled = space.arch_to_dict(space.sample(jax.random.key(0)))
    assert sampled["d"][-1] == 1
    assert len(sampled["ks"]) == 21


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 8), (12, 16), (11, 16), (19.2, 24), (134.4, 136), (44, 48), (18, 24)],
)
def test_make_divisible_never_loses_ten_percent(value, expected):
    assert make_divisible(value) == expected


def test_arch_round_trips_through_values(space):
    for seed in range(20):
        arch = space.sample(jax.random.key(seed))
        values = json.loads(json.dumps(space.arch_to_dict(arch)))
        again = space.arch_to_dict(space.arch_from_dict(values))
        assert again == values
        for i, block in enumerate(space.blocks):
            skipped = block.position >= values["d"][block.stage]
            assert (values["ks"][i] is None) == (values["e"][i] is None) == skipped


def test_arch_from_dict_reads_indices(tiny):
    values = {"ks": [3, 5, 7] * 3, "e": [6, 4, 3] * 3, "d": [1, 2, 3]}
    arch = tiny.arch_from_dict(values)
    np.testing.assert_array_equal(arch.kernel, [0, 1, 2] * 3)
    np.testing.assert_array_equal(arch.expand, [2, 1, 0] * 3)
    np.testing.assert_array_equal(arch.depth, [0, 1, 2])
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(arch))
    assert tiny.arch_to_dict(arch)["ks"] == [3, None, None, 3, 5, None, 3, 5, 7]
    everywhere = tiny.arch_from_dict({"ks": 5, "e": 4, "d": 2})
    assert tiny.arch_to_dict(everywhere)["d"] == [2, 2, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ks": 3, "e": 6}, r"lacks \['d'\]"),
        ({"ks": [3] * 8, "e": 6, "d": 3}, r"'ks'\] has 8 entries: .* has 9"),
        ({"ks": 9, "e": 6, "d": 3}, r"'ks'\]\[0\]=9: .* allows \(3, 5, 7\)"),
        ({"ks": 3, "e": [6] * 8 + [5], "d": 3}, r"'e'\]\[8\]=5: .* allows \(3, 4, 6\)"),
        ({"ks": 3, "e": 6, "d": [1, 2, 4]}, r"'d'\]\[2\]=4"),
        ({"ks": [None] * 9, "e": 6, "d": 1}, r"'ks'\]\[0\]=None"),
        ({"ks": "3" * 9, "e": 6, "d": 1}, r"'ks'"),
        ({"ks": True, "e": 6, "d": 1}, r"'ks'\]\[0\]=True"),
    ],
)
def test_a_wrong_arch_is_named(tiny, values, message):
    with pytest.raises(ValueError, match=message):
        tiny.arch_from_dict(values)


def test_a_stacked_arch_is_not_one_arch(tiny):
    with pytest.raises(ValueError, match=r"one arch of .* has"):
        tiny.arch_to_dict(stack([tiny.largest(), tiny.smallest()]))


def test_sampling_is_uniform_and_independent(tiny):
    archs = jax.vmap(tiny.sample)(jax.random.split(jax.random.key(1), 3000))
    for leaf in jax.tree.leaves(archs):
        for gene in np.asarray(leaf).T:
            np.testing.assert_allclose(np.bincount(gene, minlength=3) / 3000, 1 / 3, atol=0.04)
    genes = np.concatenate([np.asarray(a) for a in jax.tree.leaves(archs)], axis=1)
    correlation = np.corrcoef(genes.T) - np.eye(genes.shape[1])
    assert np.abs(correlation).max() < 0.08


def test_sampling_draws_open_choices_only_without_recompiling(tiny):
    traces = []

    def sample(key, choices):
        traces.append(1)
        return tiny.sample(key, choices)

    compiled = jax.jit(jax.vmap(sample, (0, None)))
    keys = jax.random.split(jax.random.key(0), 500)
    for kernels, expands, depths in [((7,), (6,), (3,)), ((3, 7), (4, 6), (2, 3)), (None,) * 3]:
        archs = compiled(keys, tiny.open_choices(kernels, expands, depths))
        drawn = [set(np.unique(leaf).tolist()) for leaf in jax.tree.leaves(archs)]
        for values, allowed, indices in zip(
            (kernels, expands, depths), ((3, 5, 7), (3, 4, 6), (1, 2, 3)), drawn, strict=True
        ):
            assert indices == {allowed.index(v) for v in values or allowed}
    assert len(traces) == 1  # phases enter as data


def test_ends_follow_the_open_choices(tiny):
    choices = tiny.open_choices((3, 5), (4,), None)
    assert tiny.arch_to_dict(tiny.largest(choices)) == {"ks": [5] * 9, "e": [4] * 9, "d": [3] * 3}
    assert tiny.arch_to_dict(tiny.smallest(choices))["ks"] == [3, None, None] * 3
    assert tiny.arch_to_dict(tiny.largest()) == {"ks": [7] * 9, "e": [6] * 9, "d": [3] * 3}


def test_choices_the_space_lacks_are_named(tiny):
    with pytest.raises(ValueError, match=r"kernels=\(3, 9\): .* \(3, 5, 7\)"):
        tiny.open_choices(kernels=(3, 9))
    with pytest.raises(ValueError, match=r"depths=\(\)"):
        tiny.open_choices(depths=())


def test_unknown_names_are_named(tiny):
    with pytest.raises(ValueError, match=r"'ofa_x' is unknown: expected one of .*ofa_tiny"):
        ofa_jax.get_space("ofa_x")
    with pytest.raises(ValueError, match="'widht' is unknown"):
        ofa_jax.get_space("ofa_tiny_d123_e346_k357", widht=3)
    with pytest.raises(ValueError, match=r"kernels=\(3, 4\): expected odd"):
        ofa_jax.get_space("ofa_tiny_d123_e346_k357", kernels=(3, 4))
    with pytest.raises(ValueError, match=r"depths=\(3, 2\): expected ascending"):
        ofa_jax.get_space("ofa_tiny_d123_e346_k357", depths=(3, 2))


def test_spaces_are_hashable_and_survive_json(space):
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert hash(again) == hash(space)
    with pytest.raises(ValueError, match="search space"):
        SearchSpace.from_dict({"name": "x"})
