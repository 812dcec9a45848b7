"""Specialised networks of others as subnets: measured, exported, predicted with and timed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from main_runs import run, write_digits
from random_nets import identical, random_variables

import ofa_jax
from benchmarks.reference import reference, reference_subnet
from ofa_jax.interop.__main__ import main
from ofa_jax.run.card import read_card
from ofa_jax.run.imported import Imported, data_config, usual_resolution, write_imported

NAMES = tuple("0123456789")
MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"


@pytest.fixture
def net(tiny):
    _, variables = random_variables(tiny)
    arch = tiny.smallest()
    _, own = ofa_jax.extract(tiny, variables, arch)
    return Imported(tiny, arch, own, (), {"file": "net.pth"})


def test_without_data_the_network_is_as_it_was(net, tmp_path):
    write_imported(tmp_path / "subnets/mine", net, 16, data_config("", "", 16))
    card = read_card(tmp_path / "subnets/mine")
    assert (card.name, card.resolution, card.accuracy) == ("mine", 16, {})
    assert card.classes[:2] == ("class 0", "class 1")
    assert card.preprocessing.center_crop == 0.875
    assert card.macs == int(ofa_jax.macs(net.space, net.arch, 16))
    assert identical(ofa_jax.load_subnet(tmp_path / "subnets/mine")[1], net.variables)


@pytest.mark.parametrize("calibrated", [False, True])
def test_with_data_it_is_measured(net, tmp_path, calibrated):
    data = data_config("digits", "", 16)
    card = write_imported(tmp_path / "mine", net, 16, data, calibrated=calibrated)
    assert card.classes == NAMES
    assert 0 <= card.accuracy["test"]["top1"] <= 1
    assert card.source == {"file": "net.pth", "dataset": "digits"}
    _, found = ofa_jax.load_subnet(tmp_path / "mine")
    assert identical(found["params"], net.variables["params"])
    assert identical(found["batch_stats"], net.variables["batch_stats"]) != calibrated
    assert bool(card.calibration_images) == calibrated


def test_other_classes_are_refused(net, tmp_path):
    swapped = dataclasses.replace(net, classes=("1", "0", *NAMES[2:]))
    fewer = dataclasses.replace(net, space=dataclasses.replace(net.space, num_classes=7))
    for other, message in (
        (swapped, "it has the class '1' where digits has '0'"),
        (fewer, "it has 7 classes, digits 10"),
    ):
        with pytest.raises(ValueError, match=message):
            write_imported(tmp_path / "mine", other, 16, data_config("digits", "", 16))
        assert not (tmp_path / "mine").exists()


def test_the_usual_resolution():
    for name, net in list(ofa_jax.published().items())[:3]:
        assert usual_resolution(net.space, net.arch) == net.resolution, name
    space = ofa_jax.get_space(MBV3)
    assert usual_resolution(space, space.largest()) == 224


@pytest.mark.slow
def test_from_the_references_files_to_an_exported_subnet(tmp_path, capsys):
    """The weights and `net.config` of a specialised net, seeded; its data are the digits."""
    torch = pytest.importorskip("torch", reason="torch is not installed: the extra [reference]")
    pytest.importorskip("ofa", reason="ofa is not installed: the extra [reference]")
    space = ofa_jax.get_space(MBV3, num_classes=10)
    torch.manual_seed(0)
    theirs = reference_subnet(space, space.smallest())
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "init")
    (tmp_path / "net.config").write_text(json.dumps(theirs.config))
    workdir = tmp_path / "run"
    arguments = [
        str(tmp_path / "init"), f"--space={MBV3}", f"--net_config={tmp_path / 'net.config'}",
        "--resolution=32",
    ]  # fmt: skip
    as_it_was, mine = tmp_path / "as-it-was", workdir / "subnets/mine"
    assert main([*arguments, f"--out={as_it_was}"]) == 0
    assert f"next: python main.py --mode=benchmark --subnet={as_it_was}" in capsys.readouterr().out
    images = np.random.default_rng(0).standard_normal((3, 32, 32, 3), np.float32)
    with torch.no_grad():
        wanted = theirs.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    subnet, variables = ofa_jax.load_subnet(as_it_was)
    found = jax.jit(subnet.apply)(variables, images)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())

    assert main([*arguments, f"--out={mine}", "--data=digits"]) == 0
    assert "% on test" in capsys.readouterr().out
    write_digits(tmp_path / "photos")
    config = ("--config=configs/specialise.py:" + str(tmp_path / "super.pth"),)
    supernet = reference(space)
    torch.save(supernet.state_dict(), tmp_path / "super.pth")
    for flags in (
        (*config, "--config.data.name=digits", "--config.data.resolutions=(32,)",
         "--mode=export", f"--workdir={workdir}", "--subnet=mine", "--format=stablehlo,onnx"),
        ("--mode=predict", f"--subnet={mine}", f"--images={tmp_path / 'photos'}"),
        ("--mode=benchmark", f"--subnet={mine}", "--batch=2"),
    ):  # fmt: skip
        code, _, error = run(*flags)
        assert code == 0, error
    card = read_card(mine)
    assert set(card.exports) == {"stablehlo", "onnx"}
    assert card.exports["onnx"].difference < 1e-4
    assert {"JAX", "ONNX Runtime"} <= {row.runtime for row in card.latency}
