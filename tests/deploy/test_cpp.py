"""The C++ program of the documentation: compiled here, it gives predict's classes."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from cards import CARD
from PIL import Image
from random_nets import random_variables

import ofa_jax
from ofa_jax.normalization import normalize_images
from ofa_jax.run import export as export_lib
from ofa_jax.run.config import from_dict
from ofa_jax.run.extract import preprocessing, write_subnet
from ofa_jax.run.predict import read_image

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
SOURCE = Path(__file__).parents[2] / "docs/classify.cpp"
DIGITS = from_dict(
    {
        "curriculum": ("only",),
        "phases": {"only": {"distill": 0.0}},
        "data": {"center_crop": 0.875},
    }
)
COMPILE = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-I/usr/include/onnxruntime"]


@pytest.fixture
def program(tmp_path):
    """The program, linked with the library inside the Python package onnxruntime."""
    if not shutil.which("g++"):
        pytest.skip("no g++ on the PATH")
    headers = subprocess.run([*COMPILE, "-M", SOURCE], capture_output=True, text=True)
    if missing := re.search(r"fatal error: (\S+): No such file", headers.stderr):
        pytest.skip(f"no header {missing[1]} (CPLUS_INCLUDE_PATH says where else to look)")
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    made = tmp_path / "classify"
    link = [f"-L{tmp_path}", "-lonnxruntime", f"-Wl,-rpath,{tmp_path}", "-o", made]
    subprocess.run([*COMPILE, SOURCE, *link], check=True)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("uint8", [False, True])
def test_the_program_gives_the_classes_of_predict(program, tiny, tmp_path, uint8):
    _, variables = random_variables(tiny)
    arch = tiny.sample(jax.random.key(0))
    subnet, own = ofa_jax.extract(tiny, variables, arch)
    card = dataclasses.replace(CARD, arch=tiny.arch_to_dict(arch), classes=tuple("0123456789"),
                               preprocessing=preprocessing(DIGITS.data, 16))  # fmt: skip
    directory = tmp_path / "subnets/mine"
    write_subnet(directory, tiny, own, card)
    export_lib.export(DIGITS, tmp_path, "mine", ["onnx"], uint8=uint8)
    rng, paths = np.random.default_rng(0), []
    for i, (height, width) in enumerate([(8, 8), (40, 53), (31, 19), (18, 18), (16, 97)]):
        paths.append(tmp_path / f"{i}.png")
        channels = 4 if i == 1 else 3  # one is transparent
        Image.fromarray(rng.integers(0, 256, (height, width, channels), np.uint8)).save(paths[-1])
    done = subprocess.run([program, directory, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pixels = np.stack([read_image(path, card) for path in paths])
    steps = card.preprocessing
    logits = subnet.apply(own, normalize_images(pixels, steps.mean, steps.std))
    lines = done.stdout.splitlines()
    for path, line, shares in zip(paths, lines, np.asarray(jax.nn.softmax(logits)), strict=True):
        name, percent = re.fullmatch(rf"{path}  (\d) ([\d.]+)%", line).groups()
        assert int(name) == shares.argmax()
        assert abs(float(percent) / 100 - shares.max()) < 0.0005
    failed = subprocess.run([program, directory, SOURCE], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {SOURCE}: ")
