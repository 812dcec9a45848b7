import json
import pickle
import sys

import numpy as np
import pytest
from random_nets import identical, random_variables

import ofa_jax
from ofa_jax import interop
from ofa_jax.checkpoint import checksum
from ofa_jax.interop.__main__ import main
from ofa_jax.run.card import read_card
from ofa_jax.supernet import read_supernet_card

torch = pytest.importorskip("torch", reason="torch is not installed: the extra [reference]")

TINY = "ofa_tiny_d123_e346_k357"


def save(path, variables, space, arch=None, **more):
    tensors = interop.to_once_for_all(variables, space, arch)
    state_dict = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    torch.save({"state_dict": state_dict, "epoch": 120, **more} if more else state_dict, path)


def test_a_pytorch_file_becomes_a_supernet(tiny, tmp_path, capsys):
    net, variables = random_variables(tiny)
    for name, more in (("plain.pth", {}), ("checkpoint.pth.tar", {"best_acc": 0.5})):
        save(tmp_path / name, variables, tiny, **more)
        out = tmp_path / f"{name}-out"
        assert main([str(tmp_path / name), f"--space={TINY}", f"--out={out}"]) == 0
        assert "supernet of ofa_tiny_d123_e346_k357, 10 classes" in capsys.readouterr().out
        space, loaded, found = ofa_jax.load_supernet(out)
        assert (space.num_classes, loaded.space.name) == (10, net.space.name)
        assert identical(found, variables)


def test_an_imported_supernet_has_a_card(tiny, tmp_path, capsys):
    _, variables = random_variables(tiny)
    save(tmp_path / "net.pth", variables, tiny)
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    arguments = [str(tmp_path / "net.pth"), f"--out={tmp_path / 'out'}"]  # the tensors tell a space
    assert main([*arguments, f"--classes={tmp_path / 'names.txt'}"]) == 0
    card = read_supernet_card(tmp_path / "out")
    assert card.space["name"] == TINY
    assert card.classes == tuple("abcdefghij")
    assert card.preprocessing.center_crop == 0.875
    assert card.source == {"file": "net.pth", "sha256": checksum(tmp_path / "net.pth")}
    assert f"--config=configs/specialise.py:{tmp_path / 'out'}" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("a\na\n")
    other = [arguments[0], f"--out={tmp_path / 'other'}", f"--classes={tmp_path / 'names.txt'}"]
    for flags, message in (
        (other, "has 2 names, 1 of them different: the network has 10 classes"),
        ([*other[:2], "--resolution=16"], "--resolution is for a specialised network"),
        ([*other[:2], "--net_config=x"], "--net_config needs --space: expected one of ofa_mbv3"),
    ):
        assert main(flags) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


def test_a_specialised_net_becomes_a_subnet(tmp_path):
    space = ofa_jax.get_space("ofa_resnet50", num_classes=10)
    arch = space.smallest()
    _, variables = random_variables(space)
    _, sub = ofa_jax.extract(space, variables, arch)
    save(tmp_path / "net.pth", sub, space, arch)
    from interop.test_net_config import reference_config

    (tmp_path / "net.config").write_text(json.dumps(reference_config("ofa_resnet50", index=1)))
    out = tmp_path / "out"
    arguments = [str(tmp_path / "net.pth"), "--space=ofa_resnet50", f"--out={out}"]
    assert main([*arguments, f"--net_config={tmp_path / 'net.config'}"]) == 0
    card = read_card(out)
    assert (card.name, card.resolution, card.classes[9]) == ("out", 224, "class 9")
    assert card.source["file"] == "net.pth"
    subnet, found = ofa_jax.load_subnet(out)
    assert subnet.blocks == space.active_blocks(arch)
    assert identical(found, sub)


class Code:
    def __reduce__(self):
        return (print, ("this pickle ran code",))


def test_what_is_not_plain_tensors_is_refused(tiny, tmp_path, capsys):
    _, variables = random_variables(tiny)
    torch.save({"state_dict": {}, "run": Code()}, tmp_path / "code.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Code()))
    (tmp_path / "text.pth").write_text("weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    save(tmp_path / "good.pth", variables, tiny)
    (tmp_path / "taken").mkdir()
    out = tmp_path / "out"
    for name, space, where, message in [
        ("code.pth", TINY, out, "code.pth is not a plain tensor file, refused: "),
        ("pickle.pth", TINY, out, "pickle.pth is not a plain tensor file, refused: "),
        ("text.pth", TINY, out, "text.pth is not a plain tensor file, refused: "),
        ("list.pth", TINY, out, "list.pth holds no state dict"),
        ("other.pth", TINY, out, "other.pth has no classifier bias"),
        ("none.pth", TINY, out, "none.pth: no such file"),
        ("good.pth", "ofa_x", out, "space 'ofa_x' is unknown"),
        ("good.pth", "ofa_resnet50", out, f"good.pth is of the space {TINY}, not ofa_resnet50: "),
        ("good.pth", TINY, tmp_path / "taken", "taken exists: give a new directory"),
    ]:
        assert main([str(tmp_path / name), f"--space={space}", f"--out={where}"]) == 2
        printed = capsys.readouterr()
        assert message in printed.err, name
        assert printed.err.count("\n") == 1
        assert "this pickle ran code" not in printed.out
        assert not out.exists()


def test_a_missing_torch_names_the_extra(tiny, tmp_path, capsys, monkeypatch):
    _, variables = random_variables(tiny)
    save(tmp_path / "good.pth", variables, tiny)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([str(tmp_path / "good.pth"), f"--space={TINY}", f"--out={tmp_path / 'o'}"]) == 2
    error = capsys.readouterr().err
    assert "good.pth, a PyTorch file, needs torch: pip install 'ofa-jax[torch]'" in error
