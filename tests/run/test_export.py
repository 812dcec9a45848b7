import dataclasses
import importlib.util

import jax
import numpy as np
import pytest
from cards import CARD, SUBNET_FILES
from random_nets import random_variables

import ofa_jax
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import stablehlo
from ofa_jax.run import benchmark as benchmark_lib
from ofa_jax.run import export as export_lib
from ofa_jax.run.card import LABELS, labels, read_card
from ofa_jax.run.card_writer import write_card
from ofa_jax.run.config import from_dict
from ofa_jax.run.extract import preprocessing, write_subnet

DIGITS = from_dict({"curriculum": ("only",), "phases": {"only": {"distill": 0.0}}})


@pytest.fixture
def subnet(tiny, tmp_path):
    """A random subnet of digits, as a directory."""
    _, variables = random_variables(tiny)
    arch = tiny.sample(jax.random.key(0))
    _, own = ofa_jax.extract(tiny, variables, arch)
    classes, steps = tuple("0123456789"), preprocessing(DIGITS.data, 16)
    written = tiny.arch_to_dict(arch)
    card = dataclasses.replace(CARD, arch=written, classes=classes, preprocessing=steps)
    directory = tmp_path / "subnets" / "mine"
    write_subnet(directory, tiny, own, card)
    return directory


def test_a_file_that_differs_is_not_kept(subnet, tmp_path, monkeypatch):
    fold = graph_lib.fold

    def wrong(net, variables):
        *layers, last = fold(net, variables)
        changed = dataclasses.replace(last.operation, bias=last.operation.bias + 0.1)
        return (*layers, graph_lib.Layer(changed, last.inputs))

    monkeypatch.setattr(graph_lib, "fold", wrong)
    before = read_card(subnet)
    with pytest.raises(ValueError, match="the stablehlo file's logits differ .* it is not kept"):
        export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"])
    assert {p.name for p in subnet.iterdir()} == SUBNET_FILES
    assert read_card(subnet) == before


def test_killed_while_a_file_is_replaced_the_subnet_stays_whole(subnet, tmp_path, monkeypatch):
    export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"])
    write = export_lib.write_card

    def killed(directory, card, changed):
        if changed:  # the new file is there, and nobody has written its checksum
            raise KeyboardInterrupt
        write(directory, card, changed)

    monkeypatch.setattr(export_lib, "write_card", killed)
    with pytest.raises(KeyboardInterrupt):
        export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"], uint8=True, overwrite=True)
    assert read_card(subnet).exports == {}  # readable, and it claims nothing
    monkeypatch.undo()
    export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"], uint8=True)  # what it left is ours
    assert read_card(subnet).exports["stablehlo"].input.startswith("uint8")
    assert not list(subnet.glob(".*"))
    again = read_card(subnet).files["model.stablehlo"]
    export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"], uint8=True, overwrite=True)
    assert read_card(subnet).files["model.stablehlo"] == again  # to the bit
    assert b".py" not in (subnet / "model.stablehlo").read_bytes()  # nothing of this machine
    with pytest.raises(ValueError, match=r"model\.stablehlo exists: --overwrite replaces it"):
        export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"])


def test_what_another_program_wrote_is_not_replaced(subnet, tmp_path):
    (subnet / "model.stablehlo").write_text("another's")
    refused = r"model\.stablehlo exists, and ofa_jax did not write it: move it away"
    for overwrite in (False, True):  # as a whole job does
        with pytest.raises(ValueError, match=refused):
            export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"], overwrite=overwrite)
    assert (subnet / "model.stablehlo").read_text() == "another's"


def test_a_uint8_file_takes_pixels(subnet, tmp_path):
    export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"], uint8=True)
    card = read_card(subnet)
    assert card.exports["stablehlo"].input == "uint8 [batch, 16, 16, 3]"
    call = export_lib.load_export(subnet, "stablehlo", card)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    net, variables = ofa_jax.load_subnet(subnet)
    steps = card.preprocessing
    images = (pixels / 255 - np.asarray(steps.mean)) / np.asarray(steps.std)
    wanted = jax.jit(net.apply)(variables, images.astype(np.float32))
    np.testing.assert_allclose(call(pixels), wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_file_of_a_fixed_batch(subnet, tmp_path):
    export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"], batch=3)
    card = read_card(subnet)
    made = card.exports["stablehlo"]
    assert (made.batch, made.input) == (3, "float32 [3, 16, 16, 3]")
    call = export_lib.load_export(subnet, "stablehlo", card)
    assert call(np.zeros((3, 16, 16, 3), np.float32)).shape == (3, 10)
    with pytest.raises(ValueError, match="Shape mismatch"):
        call(np.zeros((2, 16, 16, 3), np.float32))
    timed = benchmark_lib._calls(subnet, card, 3)
    assert {case[0] for case in timed} >= {"JAX", "StableHLO"}
    assert "StableHLO" not in {case[0] for case in benchmark_lib._calls(subnet, card, 1)}


def test_a_card_says_which_jax_loads_the_file(subnet, tmp_path):
    export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"])
    oldest = stablehlo.oldest_jax(None)
    says = f"jax {oldest} or newer, written by jax {jax.__version__}"
    assert read_card(subnet).exports["stablehlo"].runtime == says
    assert f"float32 [batch, 16, 16, 3] ({says}):" in (subnet / "README.md").read_text()


def test_a_card_says_which_runtimes_take_pixels(subnet, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra deploy")
    export_lib.export(DIGITS, tmp_path, "mine", ["onnx"])
    assert read_card(subnet).exports["onnx"].runtime == ""
    export_lib.export(DIGITS, tmp_path, "mine", ["onnx"], uint8=True, overwrite=True)
    assert read_card(subnet).exports["onnx"].runtime == "not ncnn, which has no uint8 input"


@pytest.mark.parametrize(
    ("written_by", "batch", "oldest"),
    [
        ("0.10.2", None, "0.8.2"),
        ("0.11.1", None, "0.8.2"),
        ("0.12.0.1", 1, "0.8.2"),
        ("0.12.0.1", None, "0.11.0"),
        ("0.13.0.dev20270101", 1, "0.13.0.dev20270101"),
        ("1.0.0", None, "1.0.0"),
    ],
)
def test_which_jax_loads_a_file(written_by, batch, oldest):
    assert stablehlo.oldest_jax(batch, written_by) == oldest


def test_a_missing_package_is_reported(subnet, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    hide = lambda name: None if name == "onnxruntime" else found(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", hide)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'ofa-jax\[deploy\]'"):
        export_lib.export(DIGITS, tmp_path, "mine", ["onnx"])


def test_a_run_names_the_config_field_of_what_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    needs = r"export.formats=stablehlo needs flatbuffers: pip install 'ofa-jax\[deploy\]'"
    with pytest.raises(ValueError, match=needs):
        export_lib.check_formats(["stablehlo"], "export.formats")


def test_other_classes_and_images_are_refused(subnet, tmp_path):
    card = read_card(subnet)
    steps = dataclasses.replace(card.preprocessing, mean=(0.5, 0.5, 0.5))
    for change, message in (
        ({"classes": ("cat", "dog")}, "mine has 2 classes, digits 10"),
        ({"classes": tuple("1023456789")}, "mine has the class '1' where digits has '0'"),
        ({"preprocessing": steps}, r"mine is for images of mean=\(0\.5, 0\.5, 0\.5\), data\.mean="),
    ):
        changed = dataclasses.replace(card, **change)
        (subnet / LABELS).write_text(labels(changed.classes))
        write_card(subnet, changed, [LABELS])
        with pytest.raises(ValueError, match=message):
            export_lib.export(DIGITS, tmp_path, "mine", ["stablehlo"])
