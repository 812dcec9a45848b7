import pytest

from configs import cifar10_16
from ofa_jax.run.config import from_dict
from ofa_jax.run.plan import plan
from ofa_jax.run.recipes import RECIPES, recipe

IMAGES, BATCH = 20_000, 64


def legs(text):
    return plan(from_dict(cifar10_16.get_config(text).to_dict()), IMAGES)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("passes", [18, 72, 288])
def test_every_recipe_costs_its_budget(name, passes):
    cost = sum(leg.units for leg in legs(f"{name},{passes}")) / (IMAGES // BATCH)
    assert cost == pytest.approx(passes, rel=2e-3)


@pytest.mark.parametrize("name", cifar10_16.ALONE)
def test_one_net_alone_sees_the_images_as_often_as_halves_does(name):
    assert legs(name)[-1].end == pytest.approx(legs("halves")[-1].end, abs=1)


def test_progressive_shrinking_has_the_papers_proportions():
    steps = {leg.name: leg.end - leg.first for leg in legs("ps")}
    for name, epochs in (("kernel", 120), ("depth1", 25), ("depth2", 120), ("expand1", 25)):
        assert steps[name] / steps["full"] == pytest.approx(epochs / 180, rel=0.01)
    rates = {leg.name: leg.phase.lr for leg in legs("ps")}
    assert rates["kernel"] / rates["full"] == pytest.approx(0.03 / 0.08)
    assert rates["expand2"] / rates["kernel"] == pytest.approx(0.0075 / 0.03)
    assert rates["depth1"] / rates["kernel"] == pytest.approx(0.0025 / 0.03)


def test_delayed_has_the_largest_net_alone_for_half_the_run():
    full, ordered, elastic = legs("delayed")
    assert ordered.end == pytest.approx(elastic.end / 2, rel=1e-3)
    assert (full.phase.sort_width, ordered.phase.sort_width, elastic.phase.sort_width) == (
        False, True, False,
    )  # fmt: skip
    assert full.falls == elastic.falls == (pytest.approx(0.05 * elastic.end, rel=0.01), elastic.end)
    assert elastic.phase.ramp_epochs > 0


def test_single_path_takes_one_subnet_a_step_and_then_the_sandwich():
    single, sandwich = legs("single_path")
    assert (single.phase.subnets, sandwich.phase.subnets) == (1, 4)
    assert not single.phase.distill
    assert sandwich.phase.source == "largest"
    assert single.units / sandwich.units == pytest.approx(1.5, rel=0.01)
    assert sandwich.end / legs("oneshot")[-1].end == pytest.approx(2.8, rel=0.01)
    assert (
        single.falls
        == sandwich.falls
        == (pytest.approx(0.05 * sandwich.end, rel=0.01), sandwich.end)
    )


def test_halves_spends_as_much_on_the_largest_net_alone_as_on_the_sandwich():
    full, ordered, elastic = legs("halves")
    assert full.units + ordered.units == pytest.approx(elastic.units, rel=2e-3)
    assert ordered.end / elastic.end == pytest.approx(3 / 4, rel=1e-3)
    assert (ordered.phase.sort_width, elastic.phase.draw) == (True, "sandwich")
    assert (elastic.phase.subnets, elastic.phase.labels, elastic.phase.source) == (3, 0, "largest")
    # The cosine is at its middle where the sandwich begins, and ends with it.
    begins, ends = elastic.falls
    assert (elastic.first - begins) / (ends - begins) == pytest.approx(0.48, abs=0.01)
    assert ends == elastic.end
    begins, ends = full.falls
    assert begins == pytest.approx(ordered.end / 16, rel=0.01)
    assert (ordered.end - begins) / (ends - begins) == pytest.approx(0.48, abs=0.01)


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="recipe 'psx': expected one of ps, oneshot, delayed, "):
        recipe("psx", 72, 0.1, cifar10_16.LARGEST)
