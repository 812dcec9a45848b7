import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_nets import QUICKLY, identical, inside, largest_difference, random_variables

from configs import smoke
from ofa_jax import mesh
from ofa_jax.network import build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.step import init_state, jit_step, optimizer, settings
from ofa_jax.train.optimizer import decayed
from ofa_jax.train.phases import phase_data
from ofa_jax.train.step import train_step

# One stage of up to two blocks, with squeeze-and-excite: little to compile.
SPACE = {"depths": (1, 2), "stages": smoke.STAGES[1:]}
MOST = 4  # one program for all phases of these tests
FULL = {"kernels": (7,), "expands": (6,), "depths": (2,), "distill": 0.0}


@pytest.fixture
def small():
    return from_dict({"curriculum": ("full",), "phases": {"full": FULL}, "space": SPACE}
                     ).search_space(10)  # fmt: skip


def config(loss="soft", source="teacher", distill=None, train=None, **elastic):
    phases = {"full": FULL, "elastic": {"lr": 0.05, **elastic}}
    return from_dict(
        {
            "phases": phases,
            "curriculum": ("full", "elastic"),
            "distill": {"loss": loss, "source": source, **(distill or {})},
            "train": train or {},
            "space": {"dropout": 0.0, **SPACE},
        }
    )


def setup(config, small, phase="elastic", devices=1):
    net, variables = random_variables(config.search_space(10))
    _, teacher = random_variables(small, seed=1)
    data = phase_data(config.complete(config.phases[phase]), small, 0, 100, 10)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 10, 16, np.int32),
    }
    devices = mesh.data_mesh(devices)
    step = functools.partial(train_step, net, settings(config, devices, MOST))
    step = jax.jit(step, compiler_options=QUICKLY)
    return step, init_state(config, devices, variables, 0), teacher, data, batch


def test_a_step_moves_nothing_between_host_and_device(small):
    step, state, teacher, data, batch = setup(config(), small)
    devices = mesh.data_mesh(1)
    placed = [mesh.replicate(devices, tree) for tree in (teacher, data)]
    batch_on_device = mesh.shard_batch(devices, batch)
    program = step.lower(state, *placed, batch_on_device).compile()
    with jax.transfer_guard("disallow"):
        state, _ = program(state, *placed, batch_on_device)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            program(state, *placed, batch)


def test_a_step_of_branches_is_one_of_masks_and_both_donate_their_state(small):
    """A step holds its state once, not before and after: no buffer of it is copied."""
    cfg, devices, results = config(subnets=2), mesh.data_mesh(1), {}
    _, _, teacher, data, batch = setup(cfg, small)
    constants = (mesh.replicate(devices, teacher), mesh.replicate(devices, data))
    before = jax.tree.map(np.array, teacher)
    for compute in ("masks", "branches"):
        net, variables = random_variables(small)
        state = init_state(cfg, devices, variables, 0)
        jitted = jit_step(net.clone(compute=compute), cfg, 2, devices, state)
        images = mesh.shard_batch(devices, batch)
        program = jitted.lower(state, *constants, images).compile(compiler_options=QUICKLY)
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        assert program.memory_analysis().alias_size_in_bytes == held
        results[compute] = program(state, *constants, images)
        # Donation gives the step the state's memory, and none of the teacher's.
        assert identical(constants[0], before)
    (masked, figures), (branched, others) = results.values()
    for name, figure in figures.items():
        np.testing.assert_allclose(others[name], figure, rtol=1e-4, err_msg=name)
    assert largest_difference(branched.params, masked.params) < 1e-5
    assert largest_difference(branched.batch_stats, masked.batch_stats) < 1e-5


def test_the_step_is_the_sum_over_its_subnets(small):
    """Gradients add up, loss and accuracy are means, over as many subnets as the phase has."""
    only_largest = config(expands=(6,), kernels=(7,), depths=(2,))
    step, state, teacher, data, batch = setup(only_largest, small)
    _, one = step(state, teacher, data, batch)
    for subnets in (2, 3):
        _, several = step(state, teacher, data._replace(subnets=jnp.int32(subnets)), batch)
        np.testing.assert_allclose(
            several["gradient_norm"], subnets * one["gradient_norm"], rtol=1e-4
        )
        for figure in ("loss", "accuracy"):
            np.testing.assert_allclose(several[figure], one[figure], rtol=1e-5)


def test_weights_outside_the_arch_only_decay(small):
    """They still take weight decay and momentum, as in the reference."""
    cfg = config(kernels=(3,), expands=(3,), depths=(1,))
    step, state, teacher, data, batch = setup(cfg, small)
    new, metrics = step(state, teacher, data, batch)
    used = inside(small, small.smallest(), state.params)
    decays = decayed(state.params)
    rate, decay = metrics["learning_rate"], cfg.train.weight_decay
    factor = 1 - rate * decay * 1.9  # first Nesterov step: (1 + momentum) times the gradient
    for old, fresh, u, d in zip(
        *map(jax.tree.leaves, (state.params, new.params, used, decays)), strict=True
    ):
        expected = np.asarray(old) * (factor if d else 1)
        np.testing.assert_allclose(np.asarray(fresh)[~u], expected[~u], rtol=1e-6)


def test_decay_spares_batch_norm_and_biases(small):
    _, variables = random_variables(small)
    decays = decayed(variables["params"])
    block = decays["stage1_block1"]
    assert block["depth_conv"]["conv"] == {
        "kernel": True, "5to3_matrix": True, "7to5_matrix": True,
    }  # fmt: skip
    assert block["depth_conv"]["bn"] == {"scale": False, "bias": False}
    assert block["se"]["reduce"] == {"kernel": True, "bias": False}
    assert decays["classifier"] == {"kernel": True, "bias": False}


def test_the_optimiser_is_pytorchs_sgd():
    cfg = config()
    params = {"conv": {"kernel": jnp.asarray([1.0, -2.0])}, "bn": {"scale": jnp.asarray([3.0])}}
    state, tx, w, s = optimizer(cfg).init(params), optimizer(cfg), np.array([1.0, -2.0]), 3.0
    buffer, s_buffer = np.zeros(2), 0.0
    for step in range(5):
        g, sg = np.array([0.5, 1.0]) * (step + 1), -0.3
        gradient = {"conv": {"kernel": jnp.asarray(g)}, "bn": {"scale": jnp.asarray([sg])}}
        updates, state = tx.update(gradient, state, params)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
        decay_g = g + 3e-5 * w  # coupled, before momentum
        buffer = 0.9 * buffer + decay_g
        w = w - 0.1 * (decay_g + 0.9 * buffer)
        s_buffer = 0.9 * s_buffer + sg
        s = s - 0.1 * (sg + 0.9 * s_buffer)
        np.testing.assert_allclose(params["conv"]["kernel"], w, rtol=1e-5)
        np.testing.assert_allclose(params["bn"]["scale"], [s], rtol=1e-5)


@pytest.mark.parametrize("loss", ["soft", "mse", "alpha"])
def test_distillation_is_a_choice_of_the_config(small, loss):
    step, state, teacher, data, batch = setup(config(loss=loss), small)
    _, taught = step(state, teacher, data, batch)
    _, alone = step(state, teacher, data._replace(distill=jnp.float32(0)), batch)
    _, half = step(state, teacher, data._replace(distill=jnp.float32(0.5)), batch)
    assert taught["loss"] > half["loss"] > alone["loss"]  # a term of its own, weighed by data
    np.testing.assert_allclose(
        taught["loss"] - alone["loss"], 2 * (half["loss"] - alone["loss"]), rtol=1e-4
    )


def test_the_steps_own_largest_net_can_teach(small):
    cfg = config(source="largest", expands=(6,), kernels=(7,), depths=(2,))
    step, state, teacher, data, batch = setup(cfg, small)
    _, itself = step(state, teacher, data, batch)
    _, alone = step(state, teacher, data._replace(distill=jnp.float32(0)), batch)
    # The largest net distilled from itself: the loss has the term, the gradient does not.
    assert itself["loss"] > alone["loss"] + 0.1
    np.testing.assert_allclose(itself["gradient_norm"], alone["gradient_norm"], rtol=1e-4)
    other = jax.tree.map(lambda a: a + 1, teacher)
    _, same = step(state, other, data, batch)
    np.testing.assert_array_equal(same["loss"], itself["loss"])  # the frozen teacher has no say


def test_the_largest_of_a_sandwich_teaches_by_its_own_pass(small):
    """It learns from labels alone, as BigNAS and AlphaNet have it; there is no other pass."""
    only_largest = {"expands": (6,), "kernels": (7,), "depths": (2,)}
    cfg = config(source="largest", subnets=2, draw="sandwich", **only_largest)
    step, state, teacher, data, batch = setup(cfg, small)
    _, both = step(state, teacher, data, batch)
    _, alone = step(state, teacher, data._replace(distill=jnp.float32(0)), batch)
    # Both ends are the largest net here, the second taught by the first, hence by itself.
    np.testing.assert_allclose(both["gradient_norm"], alone["gradient_norm"], rtol=1e-4)
    random = data._replace(subnets=jnp.int32(1), sandwich=jnp.asarray(False))
    _, itself = step(state, teacher, random, batch)  # by a pass of the largest net before it
    entropy = itself["loss"] - alone["loss"]
    np.testing.assert_allclose(both["loss"] - alone["loss"], entropy / 2, rtol=1e-4)


def test_what_is_taught_may_take_no_labels(small):
    cfg = config(source="largest", subnets=2, draw="sandwich", labels=0.0)
    step, state, teacher, data, batch = setup(cfg, small)
    _, taught = step(state, teacher, data, batch)
    largest = data._replace(subnets=jnp.int32(1))
    _, first = step(state, teacher, largest, batch)
    other = {**batch, "label": (batch["label"] + 1) % 10}
    _, relabelled = step(state, teacher, data, other)
    _, first_relabelled = step(state, teacher, largest, other)
    np.testing.assert_allclose(  # labels have a say in the largest net's half of the mean alone
        2 * (relabelled["loss"] - taught["loss"]),
        first_relabelled["loss"] - first["loss"], rtol=1e-3,
    )  # fmt: skip
    assert abs(relabelled["loss"] - taught["loss"]) > 1e-3


def test_a_ramp_begins_with_the_largest_net_alone(small):
    cfg = config(source="largest", subnets=3, draw="sandwich", ramp_epochs=1.0)
    step, state, teacher, data, batch = setup(cfg, small)
    gradient = {}
    for name, changes in {
        "start": {},
        "alone": {"subnets": jnp.int32(1)},
        "over": {"ramp_steps": jnp.int32(0)},
    }.items():
        _, metrics = step(state, teacher, data._replace(**changes), batch)
        gradient[name] = float(metrics["gradient_norm"])
    np.testing.assert_allclose(gradient["start"], gradient["alone"], rtol=1e-5)
    assert abs(gradient["over"] - gradient["alone"]) > 0.01 * gradient["alone"]


def test_labels_are_smoothed_for_the_taught_too_unless_they_are_not(small):
    losses = {}
    for smooth in (True, False):
        cfg = config(subnets=1, distill={"smooth_labels": smooth})
        step, state, teacher, data, batch = setup(cfg, small)
        _, taught = step(state, teacher, data, batch)
        _, alone = step(state, teacher, data._replace(distill=jnp.float32(0)), batch)
        losses[smooth] = float(taught["loss"]), float(alone["loss"])
    assert losses[True][1] == pytest.approx(losses[False][1], rel=1e-6)  # who is not taught has it
    assert abs(losses[True][0] - losses[False][0]) > 1e-3


def test_adamw_and_clipping_are_optaxs():
    params = {"conv": {"kernel": jnp.asarray([1.0, -2.0])}, "bn": {"scale": jnp.asarray([3.0])}}
    gradient = {"conv": {"kernel": jnp.asarray([3.0, 0.0])}, "bn": {"scale": jnp.asarray([4.0])}}
    train = {"optimizer": "adamw", "weight_decay": 0.1}
    tx = optimizer(config(train=train))
    theirs = optax.adamw(-1.0, weight_decay=0.1, mask=decayed)  # ours is without the rate
    ours, state = params, tx.init(params)
    expected, their_state = params, theirs.init(params)
    for _ in range(3):
        updates, state = tx.update(gradient, state, ours)
        ours = jax.tree.map(lambda p, u: p + u, ours, updates)
        updates, their_state = theirs.update(gradient, their_state, expected)
        expected = jax.tree.map(lambda p, u: p + u, expected, updates)
    for found, value in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-6)
    clipped = optimizer(config(train={"clip": 1.0, "weight_decay": 0.0, "momentum": 0.0}))
    updates, _ = clipped.update(gradient, clipped.init(params), params)
    np.testing.assert_allclose(updates["conv"]["kernel"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(updates["bn"]["scale"], [0.8], rtol=1e-6)


def test_all_phases_share_one_compilation(small):
    cfg = from_dict(
        {
            "phases": {
                "full": FULL,
                "kernel": {"expands": (6,), "depths": (2,), "lr": 0.5, "warmup_epochs": 1},
                "all": {"distill": 0.5, "subnets": 3, "draw": "sandwich"},
            },
            "curriculum": ("full", "kernel", "all"),
            "space": SPACE,
        }
    )
    _, state, teacher, _, batch = setup(cfg, small, "full")
    traces = []

    @jax.jit
    def step(*arguments):
        traces.append(1)
        net = build_supernet(cfg.search_space(10))
        return train_step(net, settings(cfg, mesh.data_mesh(1), 3), *arguments)

    for name in cfg.curriculum:
        data = phase_data(cfg.complete(cfg.phases[name]), small, 0, 100, 10)
        state, metrics = step(state, teacher, data, batch)
        assert np.isfinite(metrics["loss"])
    assert len(traces) == 1
