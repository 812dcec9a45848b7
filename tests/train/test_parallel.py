"""The step over devices and micro-steps: together they compute what one device would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from random_nets import QUICKLY, identical, largest_difference, random_variables

from ofa_jax import mesh
from ofa_jax.normalization import normalize_images
from ofa_jax.run import checkpoints
from ofa_jax.run.config import from_dict
from ofa_jax.run.groups.training import ParallelConfig
from ofa_jax.run.step import init_state, optimizer, settings
from ofa_jax.train.losses import smoothed_cross_entropy, soft_cross_entropy
from ofa_jax.train.phases import phase_data
from ofa_jax.train.step import draw_parts, train_step

BATCH = 16


def config(train=(), **parallel):
    """The last phase of the small run: everything is elastic, two subnets a part."""
    values = small_run.get_config().to_dict()
    values["train"].update(train, weight_decay=0.01)
    values["space"]["dropout"] = 0.0  # parts have dropout of their own
    values["parallel"].update(devices=1)
    values["parallel"].update(parallel)
    return from_dict(values)


@functools.cache
def setting(train=(), **parallel):
    """One setting for all tests that use it: compiling takes most of their time."""
    return Setting(config(train, **parallel))


class Setting:
    """A config's net, teacher and compiled step, on the first devices there are."""

    def __init__(self, config):
        self.config, self.space = config, config.search_space(10)
        self.net, self.variables = random_variables(self.space)
        _, self.teacher = random_variables(self.space, seed=1)
        self.devices = mesh.data_mesh(config.parallel.devices)
        self.phase = phase_data(config.phases["expand2"], self.space, 0, 10 * BATCH, BATCH)
        self.settings = settings(config, self.devices, 2)
        step = functools.partial(train_step, self.net, self.settings)
        self.step = jax.jit(step, compiler_options=QUICKLY)

    def start(self):
        return init_state(self.config, self.devices, self.variables, 0)

    def run(self, state, first=0, steps=5):
        """The state after so many steps, and their losses."""
        losses = []
        for i in range(first, first + steps):
            on_devices = mesh.shard_batch(self.devices, batch(i))
            state, metrics = self.step(state, self.teacher, self.phase, on_devices)
            losses.append(float(metrics["loss"]))
        return state, losses


def batch(i=0):
    rng = np.random.default_rng(i)
    images = rng.integers(0, 256, (BATCH, 16, 16, 3), np.uint8)
    return {"image": images, "label": rng.integers(0, 10, BATCH, np.int32)}


def check_same_state(found, expected, tolerance=1e-5):
    for field in ("params", "batch_stats", "opt_state"):
        assert largest_difference(getattr(found, field), getattr(expected, field)) < tolerance


SAME = {"subnets": "same", "statistics": "global"}


def test_eight_devices_equal_one_with_the_same_subnets_and_global_statistics():
    # Three steps: in more, an input comes to lie on an activation's kink, where one rounding tips
    # the gradient (1e-7 at step 4, 1e-4 at step 5 on one machine).
    one = setting(**SAME)
    expected, losses = one.run(one.start(), steps=3)
    eight = setting(devices=8, **SAME)
    found, their_losses = eight.run(eight.start(), steps=3)
    assert len(jax.tree.leaves(found.params)[0].sharding.device_set) == 8
    check_same_state(found, expected)
    np.testing.assert_allclose(their_losses, losses, rtol=1e-5)
    assert largest_difference(expected.params, one.variables["params"]) > 1e-2  # they did move


def test_own_subnets_equal_a_plain_loop_over_the_devices_archs():
    four = setting(devices=4)
    found, (loss,) = four.run(four.start(), steps=1)
    key = jax.random.fold_in(jax.random.key(0), 0)
    archs, _ = draw_parts(four.space, four.settings, four.phase, key, 4)
    assert len({tuple(np.ravel(a)) for a in np.asarray(archs.kernel)}) == 4
    gradients, statistics, every_loss = [], [], []
    part_gradient = plain_loop(four)
    for part in range(4):
        rows = slice(4 * part, 4 * part + 4)
        mine = jax.tree.map(lambda a, part=part: a[part], archs)
        gradient, stats, losses = part_gradient(mine, {k: v[rows] for k, v in batch().items()})
        gradients.append(gradient)
        statistics.append(stats)
        every_loss += losses
    gradient, stats = (
        jax.tree.map(lambda *leaves: sum(leaves) / 4, *t) for t in (gradients, statistics)
    )
    params = four.variables["params"]
    tx = optimizer(four.config)
    updates, _ = tx.update(gradient, tx.init(params), params)
    rate = four.config.phases["expand2"].lr  # no warm-up: the cosine's first step
    expected = jax.tree.map(lambda p, u: p - rate * u, params, updates)
    assert largest_difference(found.params, expected) < 1e-5
    assert largest_difference(found.batch_stats, stats) < 1e-5
    np.testing.assert_allclose(loss, np.mean(every_loss), rtol=1e-5)


def plain_loop(four):
    """A function of archs and images: gradients summed over subnets, as one would write it."""
    data, net = four.config.data, four.net
    teach = jax.jit(
        functools.partial(net.apply, train=True, mutable=["batch_stats"]), compiler_options=QUICKLY
    )

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    @functools.partial(jax.value_and_grad, has_aux=True)
    def subnet_loss(params, stats, arch, images, labels, targets):
        variables = {"params": params, "batch_stats": stats}
        logits, new = net.apply(variables, images, arch, train=True, mutable=["batch_stats"])
        loss = soft_cross_entropy(logits, targets) + smoothed_cross_entropy(logits, labels, 0.1)
        return loss, new["batch_stats"]

    def part_gradient(archs, part):
        images = normalize_images(jnp.asarray(part["image"]), data.mean, data.std)
        targets, _ = teach(four.teacher, images, four.space.largest())
        stats, gradients, losses = four.variables["batch_stats"], [], []
        for i in range(2):
            arch = jax.tree.map(lambda a, i=i: a[i], archs)
            (loss, stats), gradient = subnet_loss(
                four.variables["params"], stats, arch, images, part["label"], targets
            )
            gradients.append(gradient)
            losses.append(float(loss))
        return jax.tree.map(jnp.add, *gradients), stats, losses

    return part_gradient


@pytest.mark.slow
def test_devices_and_micro_steps_are_the_same_and_a_run_may_change_them(tmp_path):
    four = setting(devices=4)
    expected, losses = four.run(four.start())
    one = setting(devices=1, micro_steps=4)
    found, their_losses = one.run(one.start())
    check_same_state(found, expected)
    np.testing.assert_allclose(their_losses, losses, rtol=1e-5)
    # Interrupted on four devices, resumed on one: as uninterrupted, but for rounding.
    saved, _ = four.run(four.start(), steps=3)
    with checkpoints.open_phase(tmp_path, "expand2", 1) as manager:
        checkpoints.save_step(manager, 3, saved, {})
        checkpoints.finish_saves(manager)
    restored = checkpoints.restore_step(tmp_path, "expand2", 3, one.start())
    assert identical(restored, saved)
    assert jax.tree.leaves(restored.params)[0].sharding.device_set == {jax.devices()[0]}
    resumed, _ = one.run(restored, first=3, steps=2)
    check_same_state(resumed, expected)


@pytest.mark.slow
def test_another_order_of_sums_differs_by_rounding():
    """Two devices with two micro-steps add the four parts in pairs: the documented tolerance."""
    four, two = setting(devices=4), setting(devices=2, micro_steps=2)
    expected, _ = four.run(four.start(), steps=1)
    found, _ = two.run(two.start(), steps=1)
    check_same_state(found, expected, 1e-6)
    expected, _ = four.run(expected, first=1, steps=4)
    found, _ = two.run(found, first=1, steps=4)
    assert largest_difference(found.params, expected.params) < 1e-4  # a ReLU may tip over


@pytest.mark.slow
def test_a_spread_optimiser_computes_the_same_with_less(tmp_path):
    copied = setting(devices=4)
    expected, _ = copied.run(copied.start(), steps=2)
    spread = setting(devices=4, shard_optimizer=True)
    found, _ = spread.run(spread.start(), steps=2)
    check_same_state(found, expected)

    def bytes_on_first(tree):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    start = spread.start()
    assert bytes_on_first(start.opt_state) < 0.3 * bytes_on_first(copied.start().opt_state)
    with checkpoints.open_phase(tmp_path, "expand2", 1) as manager:
        checkpoints.save_step(manager, 2, found, {})
        checkpoints.finish_saves(manager)
    assert identical(checkpoints.restore_step(tmp_path, "expand2", 2, copied.start()), found)
    assert identical(checkpoints.restore_step(tmp_path, "expand2", 2, start), found)


def test_subnets_are_own_or_the_same():
    key = jax.random.key(5)
    for subnets, different in (("own", 6), ("same", 1)):
        two = setting(devices=2, subnets=subnets)
        archs, keys = draw_parts(two.space, two.settings, two.phase, key, 6)
        assert archs.kernel.shape == (6, 2, 2)  # of two blocks
        assert len({tuple(np.ravel(a)) for a in np.asarray(archs.kernel)}) == different
        assert len({tuple(np.ravel(k)) for k in np.asarray(jax.random.key_data(keys))}) == 6


@pytest.mark.slow
def test_the_average_of_parameters_follows_its_formula(tmp_path):
    plain, averaged = setting(), setting(train=(("ema", 0.3),))
    state, expected = averaged.start(), averaged.variables["params"]
    assert identical(state.result["params"], expected)
    for step in range(4):
        state, _ = averaged.run(state, first=step, steps=1)
        keep = min(0.3, (1 + step) / (10 + step))
        expected = jax.tree.map(lambda e, p, k=keep: k * e + (1 - k) * p, expected, state.params)
        assert largest_difference(state.ema, expected) < 1e-6
    assert state.result["params"] is state.ema
    with checkpoints.open_phase(tmp_path, "expand2", 1) as manager:
        checkpoints.save_step(manager, 4, state, {})
        checkpoints.finish_saves(manager)
    assert identical(checkpoints.restore_step(tmp_path, "expand2", 4, averaged.start()), state)
    unaveraged, _ = plain.run(plain.start(), steps=4)
    assert largest_difference(state.params, unaveraged.params) < 1e-6  # it only watches
    assert unaveraged.ema is None
    assert unaveraged.result["params"] is unaveraged.params


@pytest.mark.slow
def test_bfloat16_computes_with_float32_parameters_statistics_and_losses():
    full, half = setting(), setting(train=(("dtype", "bfloat16"),))
    expected, losses = full.run(full.start())
    found, their_losses = half.run(half.start())
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32", "int32"}
    assert losses != their_losses
    np.testing.assert_allclose(their_losses, losses, rtol=0.03)
    assert largest_difference(found.params, expected.params) < 0.05


def test_global_statistics_need_the_same_subnets():
    with pytest.raises(ValueError, match="statistics='global' needs subnets='same'"):
        ParallelConfig(statistics="global")
