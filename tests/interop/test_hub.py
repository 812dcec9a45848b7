"""Networks of the Hub: the same bits back, and whatever does not fit is one line."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from cards import CARD as SUBNETS_CARD
from random_nets import identical, random_variables
from safetensors.numpy import load_file, save_file

import ofa_jax
from ofa_jax import checkpoint, hub, interop
from ofa_jax.families import space_to_dict


@pytest.fixture
def supernet(tiny, tmp_path):
    _, variables = random_variables(tiny)
    archs = {"small": {"arch": tiny.arch_to_dict(tiny.smallest()), "top1": 0.5, "resolution": 32}}
    interop.save_pretrained(
        tmp_path / "net", tiny, variables, classes=tuple("abcdefghij"), archs=archs,
        about={"license": "apache-2.0", "dataset": "cifar10"},
    )  # fmt: skip
    return tmp_path / "net", variables


def test_a_supernet_comes_back_bit_for_bit(supernet, tiny):
    directory, variables = supernet
    found = interop.from_pretrained(directory)
    assert found.space == tiny
    assert identical(found.variables, variables)
    assert found.arch is None
    assert found.classes == tuple("abcdefghij")
    assert found.net == ofa_jax.build_supernet(tiny)
    arch = found.space.arch_from_dict(found.archs["small"]["arch"])
    assert found.space.arch_to_dict(arch) == tiny.arch_to_dict(tiny.smallest())


def test_a_subnet_comes_back_bit_for_bit(tiny, tmp_path):
    _, variables = random_variables(tiny)
    subnet, its = ofa_jax.extract(tiny, variables, tiny.smallest())
    interop.save_pretrained(tmp_path / "net", tiny, its, tiny.smallest())
    found = interop.from_pretrained(str(tmp_path / "net"))
    assert identical(found.variables, its)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    np.testing.assert_array_equal(
        found.net.apply(found.variables, images), subnet.apply(its, images)
    )


def test_others_read_the_file_by_its_names(supernet):
    directory, variables = supernet
    arrays = load_file(directory / "model.safetensors")
    kernel = variables["params"]["stage1_block1"]["point_linear"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        arrays["params.stage1_block1.point_linear.conv.kernel"], np.asarray(kernel)
    )


def test_the_model_card_has_what_the_hub_reads(supernet):
    directory, _ = supernet
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = huggingface_hub.ModelCard.load(directory / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "ofa_jax"
    assert card.data.datasets == ["cifar10"]
    assert card.data.pipeline_tag == "image-classification"
    assert "supernet" in card.data.tags
    assert "| small | 0.5 | 32 |" in card.text


def test_runs_and_subnets_are_converted(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "search").mkdir(parents=True)
    _, variables = random_variables(tiny)
    described = {"space": space_to_dict(tiny), "classes": list("abcdefghij")}
    checkpoint.save_network(run / "supernet", variables, described)
    row = {"name": "macs-1M", "arch": tiny.arch_to_dict(tiny.smallest()), "resolution": 16}
    (run / "search/found.json").write_text(json.dumps({"found": [row]}))
    out = tmp_path / "out"
    assert hub.main([str(run), f"--out={out}", "--license=mit"]) == 0
    assert capsys.readouterr().out.startswith(f"supernet written to {out}, ")
    found = interop.from_pretrained(out)
    assert identical(found.variables, variables)
    assert found.classes == tuple("abcdefghij")
    assert found.archs == {"macs-1M": {"arch": row["arch"], "resolution": 16}}
    _, its = ofa_jax.extract(tiny, variables, tiny.smallest())
    subnet = run / "subnets/mine"
    subnet.mkdir(parents=True)
    described["arch"] = row["arch"]
    checkpoint.save_network(subnet / "orbax", its, described)
    (subnet / "card.json").write_text(json.dumps(SUBNETS_CARD, default=vars))
    assert hub.main([str(subnet), f"--out={tmp_path / 'mine'}"]) == 0
    mine = interop.from_pretrained(tmp_path / "mine")
    assert identical(mine.variables, its)
    assert mine.classes == SUBNETS_CARD.classes
    assert mine.normalization["std"] == SUBNETS_CARD.preprocessing.std
    assert hub.main([str(subnet), f"--out={out}"]) == 2
    assert capsys.readouterr().err == f"error: {out} exists: give a new directory\n"
    for damage, name in (
        ({"found": [{"arch": {}}]}, "found.json: found[0].name is missing"),
        ({"found": {"name": "x"}}, "found.json: found="),
        ({"found": [3]}, "found.json: found[0]=3: expected a group of fields"),
    ):
        (run / "search/found.json").write_text(json.dumps(damage))
        assert hub.main([str(run), f"--out={tmp_path / 'again'}"]) == 2
        assert f"error: {run}/search/{name}" in capsys.readouterr().err
    stored = json.loads((subnet / "card.json").read_text())
    for damage in ({"source": "x"}, {"preprocessing": 3}, {"resolution": "16"}):
        (subnet / "card.json").write_text(json.dumps({**stored, **damage}))
        assert hub.main([str(subnet), f"--out={tmp_path / 'again'}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {subnet}/card.json: {next(iter(damage))}=")
        assert error.count("\n") == 1
    (subnet / "card.json").write_text(json.dumps(stored))
    for place in (subnet / "card.json/out", tmp_path / "dangling"):
        if place.name == "dangling":
            place.symlink_to(tmp_path / "nowhere")
        assert hub.main([str(subnet), f"--out={place}"]) == 2
        assert capsys.readouterr().err.startswith("error: ")


# Of other extras than `hub`.
ELSEWHERE = ("torch", "ofa", "onnx", "onnxruntime", "ai_edge_litert", "pytest", "huggingface_hub")
READ = """
import sys
sys.modules.update(dict.fromkeys({names}))
import numpy as np, ofa_jax
found = ofa_jax.interop.from_pretrained(sys.argv[1])
arch = found.space.arch_from_dict(found.archs["small"]["arch"])
images = np.load(sys.argv[2])
subnet, its = ofa_jax.extract(found.space, found.variables, arch)
np.save(sys.argv[2], subnet.apply(its, images))
"""


@pytest.mark.slow
def test_elsewhere_the_logits_are_the_same(supernet, tiny, tmp_path):
    """In a process that has the library and safetensors alone."""
    directory, variables = supernet
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    np.save(tmp_path / "images.npy", images)
    subnet, its = ofa_jax.extract(tiny, variables, tiny.smallest())
    wanted = subnet.apply(its, images)
    subprocess.run(
        [sys.executable, "-c", READ.format(names=ELSEWHERE), directory, tmp_path / "images.npy"],
        check=True,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), wanted)


def replaced(path, change):
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


BIAS = "params.classifier.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(BIAS), rf"missing, unknown or of another shape: '{BIAS}'"),
        (lambda a: a.update(x=np.zeros(3, np.float32)), "missing, unknown or .*: 'x'"),
        (lambda a: a.update({BIAS: np.zeros(3, np.float32)}), f"shape: '{BIAS}'"),
        (lambda a: a.update({BIAS: a[BIAS] * np.float32(np.nan)}), "no finite number"),
        (lambda a: a.update({BIAS: a[BIAS].astype(np.float64)}), "no finite number of 32 bits"),
        (lambda a: [a.pop(k) for k in list(a) if ".se." in k], r"and \d+ more$"),
    ],
)
def test_what_does_not_fit_is_named(supernet, change, message):
    directory, _ = supernet
    replaced(directory / "model.safetensors", change)
    with pytest.raises(ValueError, match=message):
        interop.from_pretrained(directory)


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_a_damaged_file_is_named(supernet, size):
    path = supernet[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file: "):
        interop.from_pretrained(supernet[0])


def test_a_damaged_description_is_named(supernet):
    path = supernet[0] / "config.json"
    path.write_text('{"space": 3}')
    with pytest.raises(ValueError, match=r"config\.json.*space=3: expected dict"):
        interop.from_pretrained(supernet[0])
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json has no 'space'"):
        interop.from_pretrained(supernet[0])


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch, supernet):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'nobody/nothing' is no directory, and cannot be had"):
        interop.from_pretrained("nobody/nothing")
    with pytest.raises(ValueError, match="'me/net' could not be pushed to the Hub: "):
        interop.push_to_hub(supernet[0], "me/net")


def test_what_is_pushed_is_the_directory(monkeypatch, supernet):
    calls = []
    api = pytest.importorskip("huggingface_hub").HfApi
    monkeypatch.setattr(api, "create_repo", lambda self, *a, **k: calls.append((a, k)))
    monkeypatch.setattr(api, "upload_folder", lambda self, **k: calls.append(k) or "address")
    assert interop.push_to_hub(supernet[0], "me/net", private=True) == "address"
    assert calls == [
        (("me/net",), {"private": True, "exist_ok": True}),
        {"repo_id": "me/net", "folder_path": str(supernet[0])},
    ]
