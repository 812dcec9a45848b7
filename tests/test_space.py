import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ofa_jax
from ofa_jax.families import space_from_dict, space_to_dict
from ofa_jax.space import Stage, make_divisible, stack


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


def test_the_resnet_space_has_the_references_dimensions():
    space = ofa_jax.get_space("ofa_resnet50")
    assert [space.stem_block.mids, space.stem_block.widths] == [(24, 24, 32), (40, 48, 64)]
    first = [block for block in space.blocks if block.position == 0]
    assert [b.widths[-1] for b in first] == [256, 512, 1024, 2048]
    assert [b.stride for b in first] == [1, 2, 2, 2]
    assert first[0].widths == (168, 208, 256)
    assert first[0].mids[0] == (32, 40, 56)  # of the active output width, 168
    assert space.stage_depths == ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))
    assert len(space.blocks) == 18
    stages = [3 * sum(3 ** (base + d) for d in range(3)) for base in (2, 2, 4, 2)]
    assert space.size == 2 * 2 * 3 * np.prod(stages, dtype=object)  # two of the stem's mids agree


def test_a_resnet_arch_is_read_as_the_reference_writes_it():
    space = ofa_jax.get_space("ofa_resnet50")
    values = {"d": [2, 0, 1, 2, 0], "e": [0.2, 0.25, 0.35] * 6, "w": [0, 1, 2, 0, 1, 2]}
    arch = space.arch_from_dict(values)
    np.testing.assert_array_equal(arch.kernel, [0] * 18)
    np.testing.assert_array_equal(arch.expand, [0, 1, 2] * 6)
    np.testing.assert_array_equal(arch.depth, values["d"])
    np.testing.assert_array_equal(arch.width, values["w"])
    written = space.arch_to_dict(arch)
    assert [written["d"], written["w"]] == [values["d"], values["w"]]
    assert written["e"][:5] == [0.2, 0.25, None, None, 0.25]
    skipped = space.arch_from_dict({**values, "d": [1, 0, 1, 2, 0]})  # only the largest keeps it
    assert space.arch_to_dict(skipped)["d"] == [0, 0, 1, 2, 0]
    with pytest.raises(ValueError, match=r"'w'\]\[0\]=0.65: .* allows \(0, 1, 2\)"):
        space.arch_from_dict({**values, "w": 0.65})
    with pytest.raises(ValueError, match=r"lacks \['w'\]: expected the keys 'e', 'd', 'w'"):
        space.arch_from_dict({"e": 0.2, "d": 2})


def test_a_resnet_stem_is_sampled_whole_or_skipped():
    space = ofa_jax.get_space("ofa_resnet50")
    keys = jax.random.split(jax.random.key(0), 400)
    for depths, stem, stages in ((None, {0, 2}, {0, 1, 2}), ((1, 2), {1, 2}, {1, 2})):
        choices = space.open_choices(depths=depths, widths=(0.8, 1.0))
        archs = jax.vmap(space.sample, (0, None))(keys, choices)
        assert set(np.unique(archs.depth[:, 0]).tolist()) == stem
        assert set(np.unique(archs.depth[:, 1:]).tolist()) == stages
        assert set(np.unique(archs.width).tolist()) == {1, 2}
    assert space.arch_to_dict(space.sample(keys[0], choices))["d"][0] in (0, 2)


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
            depth = values["d"][block.stage]
            if space.widths:  # a ResNet's depths are added to what is always there; stem first
                depth = space.stages[block.stage].depth + values["d"][block.stage + 1]
            skipped = block.position >= depth
            assert (values["e"][i] is None) == skipped
            assert (values.get("ks", values["e"])[i] is None) == skipped


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


def test_sampling_takes_open_choices_only_without_recompiling(tiny):
    traces = []

    def sample(key, choices):
        traces.append(1)
        return tiny.sample(key, choices)

    compiled = jax.jit(jax.vmap(sample, (0, None)))
    keys = jax.random.split(jax.random.key(0), 500)
    for kernels, expands, depths in [((7,), (6,), (3,)), ((3, 7), (4, 6), (2, 3)), (None,) * 3]:
        archs = compiled(keys, tiny.open_choices(kernels, expands, depths))
        sampled = [set(np.unique(leaf).tolist()) for leaf in jax.tree.leaves(archs)]
        for values, allowed, indices in zip(
            (kernels, expands, depths), ((3, 5, 7), (3, 4, 6), (1, 2, 3)), sampled, strict=True
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


def test_spaces_that_make_no_sense_are_named():
    mbv3, resnet = "ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50"
    for name, fields, message in [
        (resnet, {"kernels": (3, 5)}, "kernels=.*: bottlenecks have kernel 3 only"),
        (resnet, {"widths": ()}, r"widths=\(\): expected one multiplier"),
        (resnet, {"head": 3}, "'head' is unknown to ofa_resnet50"),
        (resnet, {"stages": (Stage(64, 1),)}, r"stages\[0\] may have 0 blocks"),
        (resnet, {"stages": (Stage(64, 1, se=True, depth=1),)}, "bottlenecks have no SE"),
        (mbv3, {"widths": (0.5, 1.0)}, "inverted residuals have no elastic width"),
        (mbv3, {"stages": ()}, r"stages=\(\): expected one stage"),
        (mbv3, {"stages": (Stage(64, 3),)}, r"stages\[0\].stride=3: expected 1 or 2"),
        (mbv3, {"stages": (Stage(64, 1, act="gelu"),)}, r"stages\[0\].act='gelu': expected one of"),
        (mbv3, {"kernels": (0, 3)}, r"kernels=\(0, 3\): expected positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            ofa_jax.get_space(name, **fields)


def test_spaces_are_hashable_and_survive_json(space):
    again = space_from_dict(json.loads(json.dumps(space_to_dict(space))))
    assert again == space
    assert hash(again) == hash(space)
    with pytest.raises(ValueError, match=r"space\.stages is missing"):
        space_from_dict({"family": "mobilenet", "name": "x"})


def test_archs_of_the_same_choices_are_equal():
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357")
    arch, other = space.sample(jax.random.key(0)), space.sample(jax.random.key(1))
    again = space.arch_from_dict(space.arch_to_dict(space.largest()))
    assert again == space.largest() and hash(again) == hash(space.largest())
    assert arch != other and arch != "smallest"
    assert {arch: 1, other: 2, space.sample(jax.random.key(0)): 3} == {arch: 3, other: 2}
    stacked = jax.tree.map(lambda leaf: leaf[None], arch)
    assert stacked != arch
    assert jax.tree.map(np.asarray, arch) == arch
