import dataclasses
import shutil

import jax
import numpy as np
import pytest
from random_nets import identical, random_variables

from ofa_jax import checkpoint, mesh
from ofa_jax.run import checkpoints
from ofa_jax.run import train as loop
from ofa_jax.run.config import from_dict
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.plan import plan
from ofa_jax.run.step import init_state
from ofa_jax.train.sort_width import sort_width

CONFIG = from_dict(
    {
        "curriculum": ("full", "expand1"),
        "phases": {
            "full": {"kernels": (7,), "expands": (6,), "depths": (3,), "distill": 0.0},
            "expand1": {"expands": (4, 6), "subnets": 2, "sort_width": True, "epochs": 2.0},
        },
    }
)


@pytest.fixture
def run(tmp_path):
    dataset = load_dataset(CONFIG.data)
    net, variables = random_variables(CONFIG.search_space(10))
    devices = mesh.data_mesh(1)
    legs = plan(CONFIG, len(dataset.train))
    run = loop.Run(CONFIG, tmp_path, dataset, net, devices, legs, None)
    state = init_state(CONFIG, devices, variables, legs[0].end)
    momentum = jax.tree.map(lambda a: a + 1 if a.ndim else a, state.opt_state)
    state = dataclasses.replace(state, opt_state=momentum)
    with checkpoints.open_phase(tmp_path, "full", 2) as manager:
        checkpoints.save_step(manager, legs[0].end, state, {})
        checkpoints.finish_saves(manager)
    return run, state


def test_the_plan_numbers_steps_through_the_run():
    full, expand = plan(CONFIG, images=1257)  # 19 steps of 64 an epoch
    assert (full.first, full.end, full.units) == (0, 19, 19)
    assert (expand.first, expand.end) == (19, 57)
    assert expand.units == pytest.approx(38 * (2 + 1 / 3))


def test_a_phase_begins_with_sorted_widths_and_a_fresh_optimiser(run):
    run, state = run
    fresh = loop.begin_phase(run, run.legs[1], state)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    ordered = sort_width(run.net.space, variables, 0)
    assert identical(fresh.params, ordered["params"])
    assert identical(fresh.batch_stats, ordered["batch_stats"])
    assert not identical(fresh.params, state.params)
    assert int(fresh.step) == 19
    assert all((np.asarray(m) == 0).all() for m in jax.tree.leaves(fresh.opt_state))


def test_the_teacher_is_the_first_phases_last_net(run):
    run, state = run
    later = loop.begin_phase(run, run.legs[1], state)
    teacher = loop.teacher_variables(run, 1, later)
    assert identical(teacher["params"], state.params)
    assert identical(teacher["batch_stats"], state.batch_stats)
    alone = loop.teacher_variables(run, 0, state)
    assert all((np.asarray(a) == 0).all() for a in jax.tree.leaves(alone))


def save(run, state, step):
    with checkpoints.open_phase(run.workdir, "expand1", 2) as manager:
        checkpoints.save_step(manager, step, state, {})
        checkpoints.finish_saves(manager)
    return checkpoints.phase_directory(run.workdir, "expand1") / str(step)


def test_the_newest_whole_checkpoint_is_found(run, capsys):
    run, state = run
    assert loop.find_checkpoint(run.workdir / "none", run.legs) == (None, [])
    assert loop.find_checkpoint(run.workdir, run.legs) == ((0, 19), [])
    save(run, state, 25)
    newest = save(run, state, 30)
    assert loop.find_checkpoint(run.workdir, run.legs) == ((1, 30), [])
    assert not capsys.readouterr().out
    (newest / checkpoint.SEAL).unlink()  # killed while it was written
    assert loop.find_checkpoint(run.workdir, run.legs) == ((1, 25), [(1, 30)])
    assert "checkpoint expand1/30 was not finished, and is left out" in capsys.readouterr().out


def test_a_checkpoint_of_another_run_is_named(run):
    run, _ = run
    copy = checkpoints.phase_directory(run.workdir, "expand1") / "99"
    shutil.copytree(checkpoints.phase_directory(run.workdir, "full") / "19", copy)
    message = rf"{copy} is not this run's, whose phase 'expand1' has steps 20 to 57: move it away"
    with pytest.raises(ValueError, match=message):
        loop.find_checkpoint(run.workdir, run.legs)
    shutil.rmtree(copy)
    assert loop.find_checkpoint(run.workdir, run.legs) == ((0, 19), [])


def test_a_supernet_that_is_in_the_way_is_kept(run, capsys):
    run, _ = run
    theirs = run.workdir / "supernet"
    loop.put_supernet_aside(theirs)  # none is there
    for number in ("", "-2"):
        theirs.mkdir()
        (theirs / "weights").write_text(f"theirs{number}")
        loop.put_supernet_aside(theirs)
        assert not theirs.exists()
        place = run.workdir / f"damaged/supernet{number}"
        assert (place / "weights").read_text() == f"theirs{number}"
        assert f"put aside in {place}" in capsys.readouterr().out


def damage(directory):
    """Turns one bit of the largest file."""
    victim = max((directory / "state").rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    return victim


def test_a_damaged_checkpoint_is_told_and_the_one_before_found(run, capsys):
    run, state = run
    directory = save(run, state, 25)
    victim = damage(directory)
    assert loop.find_checkpoint(run.workdir, run.legs) == ((0, 19), [(1, 25)])
    printed = capsys.readouterr().out
    assert f"{victim.name} is altered or truncated; the one before it is used" in printed
    loop.put_aside(run, [loop.Saved(1, 25)])
    assert f"put aside in {run.workdir}/damaged/expand1-25" in capsys.readouterr().out
    assert (run.workdir / "damaged/expand1-25" / victim.relative_to(directory)).exists()
    damage(save(run, state, 25))  # its step is free again
    shutil.rmtree(checkpoints.phase_directory(run.workdir, "full") / "19")
    with pytest.raises(ValueError, match=r"altered .*, and none before it is whole: remove"):
        loop.find_checkpoint(run.workdir, run.legs)


class Collected:
    """In place of a log and of a progress bar: what they received."""

    def __init__(self):
        self.logged, self.added, self.shown = [], [], 0

    def write(self, step, values, phase, group):
        self.logged.append((step, values["loss"], phase, group))

    def add(self, loss, accuracy):
        self.added.append((loss, accuracy))

    def show(self, images):
        self.shown += 1


def metrics(loss):
    return {"loss": jax.numpy.float32(loss), "accuracy": jax.numpy.float32(0.5)}


def test_every_step_is_shown_and_some_are_logged(run):
    run, collected = run[0], Collected()
    steps = [(step, metrics(step / 4)) for step in range(8, 20)]
    loop.record(run, run.legs[0], collected, collected, steps)
    assert collected.logged == [(10, 2.5, "full", "train"), (19, 4.75, "full", "train")]
    assert collected.added == [(step / 4, 0.5) for step in range(8, 20)]
    assert collected.shown == 1


def test_a_step_that_is_not_logged_must_be_finite_too(run):
    run, collected = run[0], Collected()
    with pytest.raises(FloatingPointError, match="loss is nan in phase 'full' at step 12: lower"):
        loop.record(
            run, run.legs[0], collected, collected, [(11, metrics(1)), (12, metrics(np.nan))]
        )
    assert collected.logged == []
