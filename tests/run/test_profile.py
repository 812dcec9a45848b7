"""--mode=profile: what it counts, and that the compiler's figures are where they should be."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

import ofa_jax
from configs import imagenet_mbv3
from ofa_jax import mesh
from ofa_jax.run import profile, programs, roofline
from ofa_jax.run.config import from_dict
from ofa_jax.run.plan import plan
from ofa_jax.run.roofline import Chip, Cost


def settled(**data):
    values = small_run.get_config().to_dict()
    values["data"].update(data)
    values["parallel"]["devices"] = 1
    return from_dict(values)


@pytest.fixture(scope="module")
def printed():
    """A whole profile of tests/small_run.py on the attached CPU."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (profile, programs):
            patch.setattr(module, "print", lambda *t, **_: lines.extend(t), raising=False)
        profile.profile(settled())
    return "\n".join(lines)


def test_space_and_curriculum_are_counted(printed):
    space = settled().search_space(10)
    for name, arch in (("smallest", space.smallest()), ("largest", space.largest())):
        macs, weights = ofa_jax.macs(space, arch, 16) / 1e6, ofa_jax.params(space, arch) / 1e6
        assert re.search(rf"  {name} +{macs:.1f}M +{weights:.3f}M", printed)
    assert "space ofa_tiny_d123_e346_k357: 90 subnets" in printed
    assert space.size == 9 + 81
    for leg in plan(settled(), 1257):
        steps = leg.end - leg.first
        assert re.search(rf"  {leg.name} +{steps} +{steps * 64:,} +{leg.phase.subnets}\n", printed)
    assert re.search(r"all +38 +2,432\n", printed)


def test_the_step_is_weighed_and_timed(printed):
    assert "1 x cpu, attached: 16 px, float32, 64 images a device" in printed
    assert len(re.findall(r"memory of a device: 0.0\d GB of [\d.]+ GB, fits", printed)) == 1
    kinds = re.findall(
        r"    (\d subnets?(?: and the teacher)?): [\d,]+ ms, [\d,]+ images/s", printed
    )
    assert kinds == ["1 subnet", "2 subnets and the teacher"]
    total = re.findall(r"  all +(\d+:\d\d)", printed)
    assert len(total) == 1
    flops = {
        name: float(re.search(rf"  {name} +([\d.]+) ", printed)[1])
        for name in (
            "the teacher, forward", "a subnet, masked", "the largest, extracted",
            "the smallest, extracted", "step of 2 subnets and the teacher",
        )
    }  # fmt: skip
    masked, forward = flops["a subnet, masked"], flops["the teacher, forward"]
    # Masks add nothing, and save nothing.
    assert masked == pytest.approx(flops["the largest, extracted"], rel=0.05)
    assert flops["the smallest, extracted"] < 0.3 * masked
    assert flops["step of 2 subnets and the teacher"] == pytest.approx(
        2 * masked + forward, abs=0.02
    )
    space = settled().search_space(10)
    macs = float(ofa_jax.macs(space, space.largest(), 16)) * 64 / 1e9
    assert 2 * macs < forward < 3.5 * macs  # a MAC is two operations; the rest is batch norm


@pytest.mark.parametrize("compute", ["masks", "branches", "widths"])
def test_a_subnet_costs_what_it_is_trained_by(compute, monkeypatch):
    """Each way's own program is weighed: masks as the largest, a switch in the mean by MACs."""
    costs = {
        "the largest, extracted": Cost(60.0, 30.0),
        "the smallest, extracted": Cost(20.0, 5.0),
        "a subnet, masked": Cost(61.0, 31.0),
        "the largest, switched": Cost(90.0, 60.0),
    }
    monkeypatch.setattr(programs, "_compiled", lambda name, _: name)
    monkeypatch.setattr(programs, "cost_of", lambda name: costs.get(name, Cost(20.0, 10.0)))
    monkeypatch.setattr(programs, "_lower", lambda *_: SimpleNamespace(compile=None))
    config = settled()
    space = config.search_space(10)
    net = ofa_jax.build_supernet(space, compute)
    made = programs.part_costs(programs.Setting(config, net, mesh.data_mesh(1)))
    own = made[programs.SUBNET[compute]]
    if compute == "masks":
        assert own == Cost(61.0, 31.0) and programs.SWITCH not in made
    else:
        sampled = np.mean(np.asarray(ofa_jax.macs(space, programs.mean_sample(space), 16)))
        ends = [
            float(ofa_jax.macs(space, arch, 16)) for arch in (space.smallest(), space.largest())
        ]
        share = (sampled - ends[0]) / (ends[1] - ends[0])
        assert own.flops == pytest.approx((20 + 40 * share) * 1.5)
        assert own.moved == pytest.approx((5 + 25 * share) * 2)


def test_what_does_not_fit_is_not_run(monkeypatch, capsys):
    monkeypatch.setattr(profile, "memory_of", lambda _: 1e6)
    costs = dict.fromkeys((programs.TEACHER, *programs.SUBNET.values()), Cost(1, 1))
    monkeypatch.setattr(profile, "part_costs", lambda _: costs)
    profile.profile(dataclasses.replace(settled(), curriculum=("full",)))
    out = capsys.readouterr().out
    assert re.search(r"memory of a device: 0.0\d GB of 0.00 GB, does not fit", out)
    assert "less fits: more parallel.micro_steps" in out
    assert "time: not known, as a step does not fit" in out


def test_data_that_is_not_there_is_counted_by_its_size():
    config = from_dict(imagenet_mbv3.get_config().to_dict())
    assert config.data.size == (1_271_167, 1000)
    with pytest.raises(
        ValueError, match=r"data.size=\(5,\): expected \(training images, classes\)"
    ):
        settled(size=(5,))
    assert profile.count(settled()) == (1257, 10)


def test_a_roofline_by_hand():
    chip = Chip(flops=1e12, memory=1e9, bandwidth=1e11, links=1e10)
    bound_by_compute = Cost(flops=2e12, moved=1e11)
    assert roofline.least(bound_by_compute, chip, 4) == (2.0, "compute")
    bound_by_memory = Cost(flops=1e12, moved=3e11)
    assert roofline.least(bound_by_memory, chip, 4) == (3.0, "memory")
    exchanged = Cost(flops=1e12, moved=1e11, reduced=2e10)  # 2 * 2e10 * 3 / 4 over 1e10
    assert roofline.least(exchanged, chip, 4) == (4.0, "links")
    assert roofline.least(exchanged, chip, 1) == (1.0, "compute")  # alone, nothing to sum
    assert bound_by_compute.times(2) + exchanged == Cost(5e12, 3e11, 2e10)


def test_devices_are_known_by_their_kind():
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    assert roofline.chip_of(Device("TPU v5 lite")).bandwidth == 819e9
    assert roofline.chip_of(Device("TPU v5")).bandwidth == 2765e9
    assert roofline.chip_of(Device("TPU v4"), 2).flops == 275e12 / 2  # one of two cores
    assert roofline.chip_of(Device("NVIDIA H100 80GB HBM3")).memory == 80e9
    assert roofline.chip_of(jax.devices()[0]) is None


def test_operations_and_memory_are_the_compilers():
    a = jax.ShapeDtypeStruct((256, 128), jnp.float32)
    b = jax.ShapeDtypeStruct((128, 64), jnp.float32)
    compiled = jax.jit(jnp.matmul).lower(a, b).compile()
    assert roofline.cost_of(compiled).flops == pytest.approx(2 * 256 * 128 * 64, rel=0.01)
    kept = 4 * (256 * 128 + 128 * 64 + 256 * 64)
    assert kept <= roofline.memory_needed(compiled) < 2 * kept


def test_arguments_are_those_of_a_run():
    config = settled()
    net = ofa_jax.build_supernet(config.search_space(10))
    setting = programs.Setting(config, net, mesh.data_mesh(1))
    state, teacher, _, batch = programs.step_arguments(setting)
    assert setting.part == 64
    assert batch["image"].shape == (64, 16, 16, 3)
    assert jax.tree.structure(teacher["params"]) == jax.tree.structure(state.params)
    sizes = [np.prod(leaf.shape) for leaf in jax.tree.leaves(setting.variables)]
    assert programs.update_cost(setting).reduced == 4 * sum(sizes)


def test_a_target_needs_its_compiler(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    needs = r"--target=v5e:2x2 needs libtpu: pip install 'ofa-jax\[tpu\]'"
    with pytest.raises(ValueError, match=needs):
        programs.target_mesh("v5e:2x2")
