"""`fit` trains a curriculum; it is the loop of docs/api.md, phase after phase."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from random_nets import identical, random_variables

import ofa_jax
from configs import smoke
from ofa_jax.space import Stage
from ofa_jax.train import fit as fit_lib

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
SIZES = {"images": 1000, "batch_size": 64}
# One stage of up to two blocks: little to compile.
SPACE = ofa_jax.get_space(
    "ofa_tiny_d123_e346_k357", num_classes=10, depths=(1, 2),
    stages=tuple(Stage(**stage) for stage in smoke.STAGES[1:]),
)  # fmt: skip
PHASES = [
    ofa_jax.Phase(kernels=(7,), expands=(6,), depths=(2,), epochs=0.2, lr=0.01, distill=0),
    ofa_jax.Phase(kernels=(7,), expands=(6,), epochs=0.2, lr=0.005),
    ofa_jax.Phase(subnets=3, draw="sandwich", epochs=0.2, lr=0.005, sort_width=True),
]


def batches(size=64):
    """Endless, the same from each call."""
    rng = np.random.default_rng(0)
    while True:
        yield {
            "image": rng.integers(0, 256, (size, 16, 16, 3), np.uint8),
            "label": rng.integers(0, 10, size, np.int32),
        }


def by_hand(net, variables, step):
    """The loop of the page, for each phase, with a step that is compiled already."""

    def make(own, *, optimizer, most):
        assert (own, most) == (net, 3)
        return step

    (loop,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
               if "itertools.islice" in text)  # fmt: skip
    names = {"itertools": itertools, "space": SPACE, "net": net, "batches": batches(),
             "ofa_jax": SimpleNamespace(**{**vars(ofa_jax), "make_train_step": make}),
             "teacher": variables, "first_step": 0}  # fmt: skip
    for phase in PHASES:
        if phase.sort_width:
            variables = ofa_jax.sort_width(SPACE, variables, phase)
        names |= {"phase": phase, "variables": variables}
        exec(compile(loop, str(PAGE), "exec"), names)
        variables = jax.device_get(names["variables"])
        names["teacher"] = names["teacher"] if names["first_step"] else variables
        names["first_step"] += phase.steps(*SIZES.values())
    return variables


def test_it_is_the_loop_of_the_page(monkeypatch):
    net, start = random_variables(SPACE)
    before, steps, seen = jax.tree.map(np.array, start), [], []

    def make(*args, **options):
        steps.append(ofa_jax.make_train_step(*args, **options))
        return steps[-1]

    monkeypatch.setattr(fit_lib, "make_train_step", make)
    found = ofa_jax.fit(net, start, PHASES, batches(), on_step=lambda *at: seen.append(at), **SIZES)
    assert identical(start, before)  # the caller's own
    assert [number for number, _ in seen] == list(range(1, 10))
    assert seen[0][1]["learning_rate"] == pytest.approx(0.01)
    assert seen[3][1]["learning_rate"] == seen[6][1]["learning_rate"] == pytest.approx(0.005)
    assert len(steps) == 1 and steps[0]._cache_size() == 1  # one program for all phases
    assert identical(found, by_hand(net, start, steps[0]))


@pytest.mark.parametrize(
    ("phases", "given", "message"),
    [
        ([], {}, r"phases=\(\): expected one or more"),
        (PHASES[1:], {}, "phases.0: phase '0' distils from a teacher, so the first phase must"),
        ([ofa_jax.Phase(kernels=(9,), distill=0)], {}, "phases.0.kernels"),
        (PHASES[:1], {"batch_size": 60}, "batch_size=60: expected a multiple of the 8 devices"),
    ],
)
def test_what_cannot_be_trained(phases, given, message):
    net = ofa_jax.build_supernet(SPACE)
    with pytest.raises(ofa_jax.InputError, match=message):
        ofa_jax.fit(net, {}, phases, batches(), **(SIZES | given))


def test_batches_that_do_not_last_or_fit():
    with pytest.raises(ofa_jax.InputError, match="the batches end after 2 of 3 steps"):
        list(fit_lib._whole(itertools.islice(batches(), 2), 64, 3))
    with pytest.raises(ofa_jax.InputError, match="batch_size=64: batch 0 has 32 images"):
        list(fit_lib._whole(batches(32), 64, 3))
    assert len(list(fit_lib._whole(batches(), 64, 3))) == 3
