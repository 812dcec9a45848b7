import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_nets import identical, largest_difference, random_images, random_variables

import ofa_jax
from ofa_jax import Phase
from ofa_jax.train.sort_width import sort_outputs

EXPAND1, EXPAND2 = Phase(expands=(4, 6)), Phase(expands=(3, 4, 6))


def test_the_largest_net_computes_the_same(space_to_run):
    space = space_to_run
    net, variables = random_variables(space)
    before = jax.tree.map(np.array, variables)
    images = random_images(space, 4)
    apply = jax.jit(net.apply)
    expected = apply(variables, images, space.largest())
    for phase in (EXPAND1, EXPAND2):
        ordered = ofa_jax.sort_width(space, variables, phase)
        assert largest_difference(apply(ordered, images, space.largest()), expected) < 1e-5
        assert not identical(ordered, variables)
        assert identical(variables, before)
        assert jax.tree.structure(ordered) == jax.tree.structure(variables)


def test_a_phase_and_the_references_stage_number_agree(tiny):
    _, variables = random_variables(tiny)
    for phase, stage in ((EXPAND1, 0), (EXPAND2, 1)):
        by_phase = ofa_jax.sort_width(tiny, variables, phase)
        assert identical(by_phase, ofa_jax.sort_width(tiny, variables, stage))


def test_the_second_phase_keeps_what_the_first_opened(tiny):
    """Without SE (whose squeeze sort is global, as in the reference) e = 4 computes the same."""
    plain = tuple(type(s)(s.width, s.stride, s.act) for s in tiny.stages)
    space = ofa_jax.get_space(tiny.name, num_classes=10, stages=plain)
    net, variables = random_variables(space)
    images, four = random_images(space, 4), space.arch_from_dict({"ks": 7, "e": 4, "d": 3})
    apply = jax.jit(net.apply)
    expected = apply(variables, images, four)
    second = ofa_jax.sort_width(space, variables, EXPAND2)
    assert largest_difference(apply(second, images, four), expected) < 1e-5
    first = ofa_jax.sort_width(space, variables, EXPAND1)
    assert largest_difference(apply(first, images, four), expected) > 1e-2


@pytest.mark.parametrize(("phase", "kept"), [(EXPAND1, []), (EXPAND2, [64])])
def test_channels_are_ordered_by_what_reads_them(tiny, phase, kept):
    _, variables = random_variables(tiny)
    ordered = ofa_jax.sort_width(tiny, variables, phase)["params"]["stage1_block1"]
    old = variables["params"]["stage1_block1"]
    importance = np.abs(ordered["point_linear"]["conv"]["kernel"]).sum(1)
    for segment in np.split(importance, kept):  # 96 middle channels, 64 of them e = 4
        assert (np.diff(segment) <= (1 / 64 if kept else 0)).all()  # the reference's offsets
        assert len(segment) > 8
    # Every array moved by the same permutation: the projection's rows give it away.
    rows = np.asarray(old["point_linear"]["conv"]["kernel"])
    new_rows = np.asarray(ordered["point_linear"]["conv"]["kernel"])
    order = np.array([np.flatnonzero((rows == row).all(1))[0] for row in new_rows])
    for part, name in (("inverted_bottleneck", "bn"), ("depth_conv", "bn")):
        np.testing.assert_array_equal(ordered[part][name]["bias"], old[part][name]["bias"][order])
    np.testing.assert_array_equal(
        ordered["depth_conv"]["conv"]["kernel"], old["depth_conv"]["conv"]["kernel"][..., order]
    )


def test_squeeze_units_are_ordered_too(tiny):
    _, variables = random_variables(tiny)
    se = ofa_jax.sort_width(tiny, variables, 0)["params"]["stage2_block2"]["se"]
    assert (np.diff(np.abs(se["expand"]["kernel"]).sum(1)) <= 0).all()


WIDTH1, WIDTH2 = Phase(widths=(0.75, 1.0)), Phase(widths=(0.5, 0.75, 1.0))


def with_widths(space, width):
    index = space.widths.index(width)
    return dataclasses.replace(space.largest(), width=jnp.full(4, index, jnp.int32))


def test_width_phases_sort_what_multipliers_cut(small_resnet):
    """The largest net stays what it is, and the second phase keeps what the first opened."""
    space = small_resnet
    net, variables = random_variables(space)
    images, apply = random_images(space, 4), jax.jit(net.apply)
    logits = {w: apply(variables, images, with_widths(space, w)) for w in space.widths}
    for phase, kept in ((WIDTH1, (1.0,)), (WIDTH2, (0.75, 1.0))):
        # Middle channels apart: their own sort would disturb the narrower nets.
        ordered = sort_outputs(space, variables, len(phase.widths) - 2)
        for width in space.widths:
            found = apply(ordered, images, with_widths(space, width))
            assert (largest_difference(found, logits[width]) < 1e-5) == (width in kept)
        everything = ofa_jax.sort_width(space, variables, phase)
        found = apply(everything, images, space.largest())
        assert largest_difference(found, logits[1.0]) < 1e-5
        only_middle = ofa_jax.sort_width(space, variables, 0)
        assert not identical(everything["params"]["stem"], only_middle["params"]["stem"])
        assert identical(only_middle["params"]["stem"], variables["params"]["stem"])
    assert identical(variables, random_variables(space)[1])  # untouched


def test_outputs_are_ordered_by_all_that_read_them(small_resnet):
    _, variables = random_variables(small_resnet)
    ordered = sort_outputs(small_resnet, variables, 0)["params"]
    second, first = ordered["stage2_block1"], ordered["stage1_block2"]
    readers = [second["conv1"], second["downsample"], first["conv1"]]
    importance = sum(np.abs(reader["conv"]["kernel"]).sum(1) for reader in readers)
    assert (np.diff(importance) <= 1e-4).all()
    assert len(importance) == 64
    last = np.abs(ordered["stage2_block2"]["conv1"]["conv"]["kernel"]).sum(1)
    last += np.abs(ordered["classifier"]["kernel"]).sum(1)
    assert (np.diff(last) <= 1e-4).all()


def test_a_stage_the_space_lacks_is_named(tiny):
    _, variables = random_variables(tiny)
    with pytest.raises(ValueError, match="expand stage 3: .* has 0 to 2"):
        ofa_jax.sort_width(tiny, variables, 3)
