import dataclasses
import json

import pytest
from cards import CARD

from ofa_jax.run.card import (
    Export,
    Latency,
    find_subnet,
    read_card,
)
from ofa_jax.run.card_writer import rendered, write_card


@pytest.fixture
def subnet(tmp_path):
    directory = tmp_path / "subnets" / "mine"
    (directory / "orbax").mkdir(parents=True)
    (directory / "orbax/weights").write_text("weights")
    write_card(directory, CARD)
    return directory


def test_a_card_comes_back(subnet):
    card = read_card(subnet)
    assert set(card.files) == {"orbax/weights"}
    assert dataclasses.replace(card, files={}) == CARD
    (subnet / "model.onnx").write_text("onnx")
    made = Export("model.onnx", 4, "float32 [batch, 3, 16, 16]", 1e-6, {"top1": 0.8})
    timed = (Latency("LiteRT", 1, 2, 0.5, 0.75),)
    write_card(
        subnet, dataclasses.replace(card, exports={"onnx": made}, latency=timed), ["model.onnx"]
    )
    again = read_card(subnet)
    assert again.exports == {"onnx": made}
    assert again.latency == timed
    assert set(again.files) == {"orbax/weights", "model.onnx"}


def test_classes_differ_and_are_those_of_the_labels(subnet):
    """Sorted by hand, or one twice, a prediction would name the wrong one."""
    path = subnet / "card.json"
    (subnet / "labels.txt").write_text("cat\ndog\n")
    write_card(subnet, CARD)
    assert read_card(subnet).classes == ("cat", "dog")
    stored = json.loads(path.read_text())
    for classes, message in (
        (["dog", "cat"], r"card.json: classes are not those of labels.txt, in their order"),
        (["cat"], r"card.json: classes are not those of labels.txt"),
        (["cat", "cat"], r"card.json: classes: 'cat' is named twice"),
    ):
        path.write_text(json.dumps({**stored, "classes": classes}))
        with pytest.raises(ValueError, match=message):
            read_card(subnet)


def test_people_read_the_same(subnet):
    text = (subnet / "README.md").read_text()
    assert text == rendered(read_card(subnet))
    for line in ("| top-1, test | 90.00% |", "| MACs | 2.00 M |", "cat, dog", "pets", "18 px"):
        assert line in text


def test_a_file_of_less_precision_says_what_it_costs():
    plain = Export("model.onnx", 400, "float32 [batch, 3, 16, 16]", 1e-6)
    small = dataclasses.replace(
        plain, file="model.int8.onnx", bytes=150, accuracy={"top1": 0.895}, snr_db=31.4
    )
    card = dataclasses.replace(CARD, exports={"onnx": plain, "onnx-int8": small})
    facts = "Top-1 89.50% on test, 90.00% in float32; logits 31 dB over their noise; 0.38 times the"
    assert f"{facts} size. `--mode=benchmark` says whether" in rendered(card)

    def timed(*ms):
        rows = [Latency(f"ONNX Runtime{kind}", 1, threads, x, x)
                for (kind, threads), x in zip([("", 1), ("", 2), (" int8", 1), (" int8", 2)], ms,
                                              strict=True)]  # fmt: skip
        return dataclasses.replace(card, latency=tuple(rows))

    assert "size. 0.60 times float32's time at batch 1." in rendered(timed(10, 10, 5, 7))
    slower = timed(10, 10, 11, 13)
    assert "No faster here, 1.20 times float32's time at batch 1: it saves size" in rendered(slower)
    assert "prefer float32" not in rendered(slower)
    worse = dataclasses.replace(small, accuracy={"top1": 0.85})
    text = rendered(dataclasses.replace(slower, exports={"onnx": plain, "onnx-int8": worse}))
    assert "**It loses 5.0 points: prefer float32.**" in text
    partly = dataclasses.replace(small, in_float=5)
    text = rendered(dataclasses.replace(card, exports={"onnx-int8": partly}))
    assert "31 dB over their noise, the first 5 layers in float32. `--mode" in text


def test_altered_and_missing_files_are_named(subnet):
    (subnet / "orbax/weights").write_text("other")
    with pytest.raises(ValueError, match="mine: its file orbax/weights is altered or truncated"):
        read_card(subnet)
    (subnet / "orbax/weights").unlink()
    with pytest.raises(ValueError, match="mine: its file orbax/weights is missing"):
        read_card(subnet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema=2: expected 1; a newer ofa_jax wrote this card"),
        ({"colour": "red"}, "unknown field colour"),
        ({"resolution": "big"}, "resolution='big': expected int"),
        ({"preprocessing": {}}, "preprocessing.resize_shorter_side is missing"),
    ],
)
def test_a_broken_card_is_reported_by_field(subnet, change, message):
    data = json.loads((subnet / "card.json").read_text())
    (subnet / "card.json").write_text(json.dumps({**data, **change}))
    with pytest.raises(ValueError, match=message):
        read_card(subnet)


def test_subnets_are_found_by_name_and_by_path(subnet, tmp_path):
    assert find_subnet(tmp_path, "mine") == subnet
    assert find_subnet(tmp_path / "elsewhere", str(subnet)) == subnet
    with pytest.raises(ValueError, match="--subnet='yours': expected .* in .*subnets: mine"):
        find_subnet(tmp_path, "yours")
    with pytest.raises(ValueError, match="--subnet='mine': .*elsewhere does not exist"):
        find_subnet(tmp_path / "elsewhere", "mine")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match="none yet, --mode=extract makes one"):
        find_subnet(tmp_path / "elsewhere", "mine")
