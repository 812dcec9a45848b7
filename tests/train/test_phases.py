import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ofa_jax.run.config import from_dict
from ofa_jax.run.plan import plan
from ofa_jax.train.phases import (
    Phase,
    check_curriculum,
    draw_archs,
    learning_rate,
    phase_data,
    ramp,
)

FULL = Phase(kernels=(7,), expands=(6,), depths=(3,), distill=0.0)


def test_the_learning_rate_is_the_references(tiny):
    phase = Phase(epochs=4, warmup_epochs=2, lr=0.8, warmup_lr=0.1)
    data = phase_data(phase, tiny, first_step=100, images=1000, batch_size=100)
    for step in range(60):  # 10 steps an epoch; calc_learning_rate, warmup_adjust_learning_rate
        if step < 20:
            expected = (step + 1) / 20 * (0.8 - 0.1) + 0.1
        else:
            expected = 0.5 * 0.8 * (1 + math.cos(math.pi * (step - 20) / 40))
        np.testing.assert_allclose(learning_rate(data, jnp.int32(100 + step)), expected, rtol=1e-4)


def test_one_cosine_may_fall_over_the_whole_run(tiny):
    """Each phase takes its part of it: no restart where one begins."""
    config = from_dict(
        {
            "curriculum": ("full", "elastic"),
            "phases": {
                "full": {**dataclasses.asdict(FULL), "epochs": 3, "warmup_epochs": 1, "lr": 0.8},
                "elastic": {"epochs": 4, "lr": 0.4},
            },
            "train": {"schedule": "run"},
            "data": {"batch_size": 100},
        }
    )
    legs = plan(config, images=1000)
    rates = []
    for leg in legs:
        data = phase_data(leg.phase, tiny, leg.first, 1000, 100, leg.falls)
        rates.extend(learning_rate(data, jnp.int32(step)) for step in range(leg.first, leg.end))
    warm = [0.8 * (step + 1) / 10 for step in range(10)]
    falling = [0.5 * (1 + math.cos(math.pi * step / 70)) for step in range(70)]
    peak = [0.8] * 30 + [0.4] * 40
    expected = [*warm, *(a * b for a, b in zip(peak, falling, strict=True))]
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_one_cosine_may_fall_by_subnet_passes(tiny):
    """Steps of four subnets take it four times as far as steps of one."""
    config = from_dict(
        {
            "curriculum": ("full", "elastic"),
            "phases": {
                "full": {**dataclasses.asdict(FULL), "epochs": 3, "warmup_epochs": 1, "lr": 1.0},
                "elastic": {
                    "epochs": 4,
                    "lr": 1.0,
                    "subnets": 4,
                    "draw": "sandwich",
                    "source": "largest",
                },
            },
            "train": {"schedule": "passes"},
            "data": {"batch_size": 100},
        }
    )
    legs = plan(config, images=1000)
    rates = []
    for leg in legs:
        data = phase_data(leg.phase, tiny, leg.first, 1000, 100, leg.falls)
        rates.extend(learning_rate(data, jnp.int32(step)) for step in range(leg.first, leg.end))
    passes = [*range(30), *(30 + 4 * step for step in range(40))]  # of 190 after the warm-up
    falling = [0.5 * (1 + math.cos(math.pi * done / 190)) for done in passes]
    np.testing.assert_allclose(rates[10:], falling, atol=0.01)  # half a step of 48
    assert rates[-1] > 0
    assert max(abs(a - b) for a, b in itertools.pairwise(rates[10:])) < 0.05


def test_the_others_weight_rises_from_the_phases_start(tiny):
    phase = Phase(draw="sandwich", subnets=2, ramp_epochs=2)
    data = phase_data(phase, tiny, first_step=100, images=1000, batch_size=100)
    weights = [float(ramp(data, jnp.int32(step))) for step in (100, 105, 119, 120, 150)]
    np.testing.assert_allclose(weights, [0, 0.25, 0.95, 1, 1], rtol=1e-6)
    at_once = phase_data(Phase(), tiny, first_step=100, images=1000, batch_size=100)
    assert float(ramp(at_once, jnp.int32(100))) == 1


def test_steps_count_the_warm_up():
    assert Phase(epochs=4, warmup_epochs=1).steps(images=1050, batch_size=100) == 50


def test_random_draws_follow_the_phase(tiny):
    data = phase_data(Phase(kernels=(5, 7), expands=(6,), depths=(3,)), tiny, 0, 100, 10)
    archs = draw_archs(tiny, data, jax.random.split(jax.random.key(0), 40))
    assert set(np.unique(archs.kernel)) == {1, 2}
    assert set(np.unique(archs.expand)) == set(np.unique(archs.depth)) == {2}
    assert len({tuple(np.asarray(k)) for k in archs.kernel}) > 35  # each on its own


def test_a_sandwich_has_both_ends_and_random_ones(tiny):
    phase = Phase(expands=(4, 6), subnets=4, draw="sandwich")
    data = phase_data(phase, tiny, 0, 100, 10)
    archs = draw_archs(tiny, data, jax.random.split(jax.random.key(0), 4))
    choices = phase.choices(tiny)
    for i, expected in enumerate([tiny.largest(choices), tiny.smallest(choices)]):
        for leaf, end in zip(jax.tree.leaves(archs), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(leaf[i], end)
    assert not np.array_equal(archs.kernel[2], archs.kernel[3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"draw": "sandwhich"}, "draw='sandwhich': expected one of random, sandwich"),
        ({"draw": "sandwich", "subnets": 1}, "needs at least 2"),
        ({"subnets": 0}, "subnets=0"),
        ({"lr": -1.0}, "lr=-1.0: expected 0 to 1,000"),
        ({"epochs": math.nan}, "epochs=nan"),
        ({"source": "largst"}, "source='largst': expected one of '', teacher, largest"),
        ({"loss": "kl"}, "loss='kl': expected one of '', soft, mse, alpha"),
        ({"ramp_epochs": 1.0}, "ramp_epochs=1.0: needs draw='sandwich'"),
    ],
)
def test_wrong_phases_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Phase(**fields)


def test_a_phase_that_opens_what_the_space_lacks_is_named(tiny):
    phases = [("full", FULL), ("kernel", Phase(kernels=(5, 9)))]
    with pytest.raises(ValueError, match=r"phases.kernel.kernels=\(5, 9\): .*\(3, 5, 7\)"):
        check_curriculum(tiny, phases)


def test_distillation_needs_a_teacher(tiny):
    one_shot = [("oneshot", Phase(subnets=4, distill=1.0, source="teacher"))]
    with pytest.raises(ValueError, match="phases.oneshot: .* must train the largest net alone"):
        check_curriculum(tiny, one_shot)
    in_place = [("oneshot", Phase(subnets=4, distill=1.0, source="largest"))]
    check_curriculum(tiny, in_place)
    check_curriculum(tiny, [("full", FULL), *in_place, *one_shot])
    check_curriculum(tiny, [("full", FULL), *one_shot])
    check_curriculum(tiny, one_shot, teacher=True)
