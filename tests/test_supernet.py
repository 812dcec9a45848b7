"""The card of a supernet, and what does not fit it."""

import dataclasses
import json

import pytest
from random_nets import identical, random_variables

import ofa_jax
from ofa_jax import checkpoint
from ofa_jax.families import space_from_dict, space_to_dict
from ofa_jax.supernet import (
    Preprocessing,
    SupernetCard,
    other_resolutions,
    other_space,
    read_supernet_card,
    save_supernet,
)

IMAGES = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.875)


@pytest.fixture
def saved(tiny, tmp_path):
    _, variables = random_variables(tiny)
    card = SupernetCard(
        space_to_dict(tiny), tuple("abcdefghij"), IMAGES, (16, 20), {"run": "mine"},
        {"dataset": "digits", "steps": 3},
    )  # fmt: skip
    save_supernet(tmp_path / "supernet", tiny, variables, card)
    return tmp_path / "supernet", variables, card


def test_a_supernet_has_a_card(saved, tiny):
    directory, variables, card = saved
    read = read_supernet_card(directory)
    assert read == dataclasses.replace(
        card, created=read.created, files=read.files, space=read.space
    )
    assert space_from_dict(read.space) == tiny
    assert read.normalization == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    inside = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    assert read.files.keys() == inside - {"card.json", "sha256.json"}
    for name, sha in read.files.items():
        assert checkpoint.checksum(directory / name) == sha
    assert identical(ofa_jax.load_supernet(directory)[2], variables)


def test_an_altered_card_is_reported(saved):
    directory, _, _ = saved
    path = directory / "card.json"
    path.write_text(path.read_text().replace('"a"', '"A"'))
    with pytest.raises(ValueError, match=r"its file card\.json is altered or truncated"):
        ofa_jax.load_supernet(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, r"card\.json.*schema=2: expected 1; a newer ofa_jax"),
        ({"resolutions": ["a"]}, r"card\.json.*resolutions\[0\]='a': expected int"),
        ({"preprocessing": {"mean": [0.5]}}, r"card\.json.*mean=\(0\.5,\): expected 3 numbers"),
        ({"preprocessing": {"center_crop": 2.0}}, r"center_crop=2\.0: expected 0 to 1"),
        ({"files": {"../x": ""}}, r"expected a file inside the directory"),
        ({"classes": ["a"]}, r"card\.json.*classes: 1 names, the space has 10"),
        ({"resolutions": [0]}, r"card\.json.*resolutions=\(0,\): expected pixels, 1 to 4096"),
        ({"space": {"family": "x"}}, r"card\.json.*space family 'x' is unknown"),
        ({"more": 1}, r"card\.json.*unknown field more"),
    ],
)
def test_a_damaged_card_is_named(saved, change, message):
    path = saved[0] / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        read_supernet_card(saved[0])


def test_a_supernet_from_before_there_were_cards(tiny, tmp_path):
    _, variables = random_variables(tiny)
    described = {"space": space_to_dict(tiny), "normalization": {"mean": IMAGES.mean}}
    checkpoint.save_network(tmp_path / "old", variables, described)
    card = read_supernet_card(tmp_path / "old")
    assert (space_from_dict(card.space), card.classes, card.resolutions) == (tiny, (), ())
    assert card.normalization == {"mean": IMAGES.mean}
    described["arch"] = tiny.arch_to_dict(tiny.smallest())
    checkpoint.save_network(tmp_path / "subnet", variables, described)
    with pytest.raises(ValueError, match="subnet holds a subnet: expected a supernet"):
        read_supernet_card(tmp_path / "subnet")


def shapes(space):
    return [block.__class__ for block in space.blocks], ofa_jax.params(space, space.largest())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expands": (2, 3, 6)}, r"expands=(2, 3, 6), (3, 4, 6) here"),
        ({"depths": (1, 3)}, "depths=(1, 3), (1, 2, 3) here"),
        ({"bn_eps": 1e-3}, "bn_eps=0.001, 1e-05 here"),
    ],
)
def test_another_space_of_the_same_shapes(tiny, change, message):
    theirs = dataclasses.replace(tiny, **change)
    assert shapes(theirs) == shapes(tiny)
    assert other_space(theirs, tiny) == message


def test_other_activations_and_strides_have_the_same_shapes_too(tiny, small_resnet):
    for field, value in (("act", "relu6"), ("stride", 1)):
        first = dataclasses.replace(tiny.stages[0], **{field: value})
        theirs = dataclasses.replace(tiny, stages=(first, *tiny.stages[1:]))
        assert shapes(theirs) == shapes(tiny)
        assert other_space(theirs, tiny).startswith("stages=")
    assert other_space(small_resnet, tiny) == f"{small_resnet.name}, {tiny.name} here"


def test_what_may_differ_between_spaces(tiny):
    free = dataclasses.replace(tiny, name="mine", num_classes=3, dropout=0.5, resolutions=(64,))
    assert other_space(free, tiny) == ""


def test_resolutions():
    assert other_resolutions((), (16,)) == ""
    assert other_resolutions((128, 224), (160, 224)) == ""
    assert other_resolutions((16,), (16, 20)) == "data.resolutions=(16, 20), trained at 16 px"
    assert (
        other_resolutions((128, 224), (96,)) == "data.resolutions=(96,), trained at 128 to 224 px"
    )
