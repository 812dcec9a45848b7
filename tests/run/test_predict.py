"""Classes of image files, whatever they are called."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from cards import CARD
from PIL import Image
from random_nets import random_variables

from ofa_jax.run.data.decode import SUFFIXES
from ofa_jax.run.extract import write_subnet
from ofa_jax.run.predict import find_images, predict, read_image
from ofa_jax.subnets.extract import extract


def write(path, data=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def found(text, below):
    return [str(path.relative_to(below)) for path in find_images(str(text))]


def test_every_suffix_of_training_is_one_of_prediction(tmp_path):
    names = sorted(f"{i}{suffix}" for i, suffix in enumerate((*SUFFIXES, ".JFIF", ".Tif")))
    for name in names:
        write(tmp_path / name)
    assert found(tmp_path, tmp_path) == names
    assert found(tmp_path / "*", tmp_path) == names


def test_directories_are_searched_and_what_is_left_out_is_reported(tmp_path, capsys):
    for name in ("a.jpg", "b/c.tif", "b/d/e.PNG", "._a.jpg", "__MACOSX/b/x.jpg", ".cache/x.jpg",
                 "b/.DS_Store", "b/Thumbs.db", "b/f.heic", "g.txt", "b/g.txt"):  # fmt: skip
        write(tmp_path / name)
    assert found(tmp_path, tmp_path) == ["a.jpg", "b/c.tif", "b/d/e.PNG"]
    out, error = capsys.readouterr()
    assert (out, error) == ("", "left out: 3 hidden, 2 .txt, 1 .heic\n")
    assert found(tmp_path / "**/*.*[fgG]", tmp_path) == ["a.jpg", "b/c.tif", "b/d/e.PNG"]
    capsys.readouterr()
    assert found(tmp_path / "?.*", tmp_path) == ["a.jpg"]
    assert capsys.readouterr().err == "left out: 1 .txt\n"
    assert found(tmp_path / "a.jpg", tmp_path) == ["a.jpg"]
    assert found(tmp_path / "g.txt", tmp_path) == [
        "g.txt"
    ]  # a file's own name is taken at its word
    assert capsys.readouterr().err == ""


def test_folders_that_are_not_searched_are_reported(tmp_path, monkeypatch, capsys):
    for name in ("photos/a.jpg", "elsewhere/b.jpg", "elsewhere/c.jpg"):
        write(tmp_path / name)
    (tmp_path / "photos/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/again").symlink_to(tmp_path / "photos")
    assert found(tmp_path / "photos", tmp_path) == ["photos/a.jpg"]
    assert capsys.readouterr().err == "left out: 5 in nested folders\n"  # 2 and 3

    def locked(place):
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="photos"):
        find_images(str(tmp_path / "photos"))


@pytest.mark.parametrize(
    "name", ["a b.png", "100%.png", "'\".png", "größe 猫🦉.png", "[a].png", "a\nb.png", b"\xfc.png"]
)
def test_images_may_be_called_anything(tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path / "in [x]") + b"/" + os.fsencode(name)))
    path.parent.mkdir()
    Image.fromarray(np.zeros((20, 16, 3), np.uint8)).save(path.parent / "plain.png")
    (path.parent / "plain.png").rename(path)
    assert find_images(str(path.parent)) == [path]
    assert read_image(path, CARD).shape == (CARD.resolution, CARD.resolution, 3)


@pytest.mark.parametrize("text", ["", "none", "none/*.jpg", "texts", "texts/*"])
def test_no_image_is_reported(tmp_path, text):
    write(tmp_path / "texts/a.txt")
    holds = "1 .txt" if "texts" in text else "nothing"
    with pytest.raises(ValueError, match=rf"--images=.*\(.jpg .*.png .*\), .*, found {holds}$"):
        find_images(str(tmp_path / text) if text else "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no image", "truncated, damaged or of a format OpenCV does not read"),
        (b"P6 40000 40000 255\n", "OpenCV: pixels <= CV_IO_MAX_IMAGE_PIXELS"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(tmp_path, data, reason):
    write(tmp_path / "a\nb.png", data)
    with pytest.raises(ValueError) as raised:
        read_image(tmp_path / "a\nb.png", CARD)
    assert str(raised.value) == f"image {tmp_path}/a\\nb.png cannot be read: {reason}"


@pytest.fixture
def subnet(tiny, tmp_path):
    """A random subnet of two classes, as a directory."""
    space = dataclasses.replace(tiny, num_classes=2)
    _, variables = random_variables(space)
    _, own = extract(space, variables, space.smallest())
    card = dataclasses.replace(CARD, arch=space.arch_to_dict(space.smallest()))
    write_subnet(tmp_path / "subnets" / "mine", space, own, card)
    return tmp_path / "subnets" / "mine"


@pytest.fixture
def photos(tmp_path):
    """Two images, and between them one that is none."""
    for name in ("a.png", "c.png"):
        pixels = np.random.default_rng(ord(name[0])).integers(0, 256, (20, 24, 3), np.uint8)
        write(tmp_path / "photos" / name)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    write(tmp_path / "photos/b.png", b"no image")
    return tmp_path / "photos"


def test_an_image_that_cannot_be_read_is_skipped_and_counted(subnet, photos, capsys):
    predict(subnet, str(photos), top=1)
    out, error = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == [
        str(photos / "a.png"), str(photos / "c.png"),
    ]  # fmt: skip
    skipped, count = error.splitlines()
    assert re.fullmatch(r"image .*b\.png cannot be read: truncated, .*: skipped", skipped)
    assert count == "1 of 3 images skipped"
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        predict(subnet, str(photos), strict=True)
    with pytest.raises(ValueError, match="none of 1 image is one"):
        predict(subnet, str(photos / "b.png"))


def test_lines_may_be_json(subnet, photos, capsys):
    (photos / "b.png").unlink()
    predict(subnet, str(photos))
    plain = capsys.readouterr().out.splitlines()
    predict(subnet, str(photos), as_json=True)
    for text, line in zip(plain, capsys.readouterr().out.splitlines(), strict=True):
        parsed = json.loads(line)
        assert set(parsed["classes"]) == {"cat", "dog"}
        assert sum(parsed["classes"].values()) == pytest.approx(1, abs=1e-5)
        shares = "  ".join(f"{name} {share:.2%}" for name, share in parsed["classes"].items())
        assert text == f"{parsed['image']}  {shares}"
