import jax
import numpy as np
import pytest
from random_nets import identical, inside, largest_difference, random_images, random_variables

import ofa_jax
from ofa_jax.subnets.calibrate import batch_moments_of_each, calibrate_each, group


def copy(tree):
    return jax.tree.map(np.array, tree)


def test_statistics_are_the_weighted_mean_of_batch_moments(tiny):
    net, variables = random_variables(tiny)
    before = copy(variables)
    batches = [random_images(tiny, n, seed=n) for n in (12, 4)]
    stats = ofa_jax.calibrate(net, variables, tiny.largest(), batches)
    # The first batch norm sees images through the first convolution only: worked out by hand.
    kernel = variables["params"]["first_conv"]["conv"]["kernel"]
    moments = []
    for images in batches:
        x = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        moments.append((np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))))
    for i, name in enumerate(("mean", "var")):
        expected = (12 * moments[0][i] + 4 * moments[1][i]) / 16
        np.testing.assert_allclose(stats["first_conv"]["bn"][name], expected, rtol=1e-4, atol=1e-6)
    assert identical(variables, before)  # vs is untouched
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])


def test_it_starts_fresh(tiny):
    net, variables = random_variables(tiny)
    batches = [random_images(tiny, 8)]
    first = ofa_jax.calibrate(net, variables, tiny.largest(), batches)
    other = {**variables, "batch_stats": jax.tree.map(lambda a: a + 1, variables["batch_stats"])}
    assert identical(first, ofa_jax.calibrate(net, other, tiny.largest(), batches))


def test_channels_outside_the_arch_keep_their_statistics(tiny):
    net, variables = random_variables(tiny)
    arch = tiny.smallest()
    stats = ofa_jax.calibrate(net, variables, arch, [random_images(tiny, 8)] * 2)
    used = inside(tiny, arch, variables["params"])
    for name in ("stage1_block1", "stage2_block3"):
        active = used[name]["depth_conv"]["bn"]["bias"]
        old = variables["batch_stats"][name]["depth_conv"]["bn"]
        for field in ("mean", "var"):
            new = stats[name]["depth_conv"]["bn"][field]
            np.testing.assert_array_equal(new[~active], old[field][~active])
            assert (new[active] != old[field][active]).all()


def test_supernet_and_subnet_calibrate_alike(space_to_run):
    space = space_to_run
    net, variables = random_variables(space)
    arch = space.sample(jax.random.key(3))
    batches = [random_images(space, 16, seed=s) for s in range(2)]
    stats = ofa_jax.calibrate(net, variables, arch, batches)
    _, sliced = ofa_jax.extract(space, {**variables, "batch_stats": stats}, arch)
    subnet, sub = ofa_jax.extract(space, variables, arch)
    own = ofa_jax.calibrate(subnet, sub, None, batches)
    assert largest_difference(sliced["batch_stats"], own) < 1e-5


def test_calibrated_logits_are_those_of_train_mode(tiny):
    net, variables = random_variables(tiny)
    images, arch = random_images(tiny, 16), tiny.sample(jax.random.key(1))
    stats = ofa_jax.calibrate(net, variables, arch, [images])
    logits = net.apply({**variables, "batch_stats": stats}, images, arch)
    expected, _ = net.apply(variables, images, arch, train=True, mutable=["batch_stats"])
    assert largest_difference(logits, expected) < 1e-4


def test_many_archs_calibrate_as_one_by_one(tiny):
    net, variables = random_variables(tiny)
    archs = [tiny.largest(), tiny.smallest(), tiny.sample(jax.random.key(2))]
    batches = [random_images(tiny, n, seed=n) for n in (12, 4)]
    stacked = calibrate_each(net, variables, group(archs), batches)
    compiled = batch_moments_of_each._cache_size()
    for i, arch in enumerate(archs):
        alone = ofa_jax.calibrate(net, variables, arch, batches)
        assert identical(jax.tree.map(lambda rows, i=i: rows[i], stacked), alone)
    assert batch_moments_of_each._cache_size() == compiled  # one program for any number


def test_no_batches_are_refused(tiny):
    net, variables = random_variables(tiny)
    with pytest.raises(ValueError, match="no batches"):
        ofa_jax.calibrate(net, variables, tiny.largest(), [])


@pytest.mark.parametrize("count", [0, 21])
def test_a_group_has_its_limits(tiny, count):
    with pytest.raises(ValueError, match=f"{count} archs: expected 1 to 20"):
        group([tiny.largest()] * count)
