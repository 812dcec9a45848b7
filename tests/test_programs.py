"""The program of docs/ for machines without jax says what `--mode=predict` says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cards import CARD
from PIL import Image
from random_nets import random_variables

import ofa_jax
from ofa_jax.run.config import from_dict
from ofa_jax.run.export import export
from ofa_jax.run.extract import preprocessing, write_subnet
from ofa_jax.run.predict import predict

PROGRAM = Path(__file__).parents[1] / "docs" / "onnx_predict.py"
DIGITS = from_dict({"curriculum": ("only",), "phases": {"only": {"distill": 0.0}}})
# Nothing of ours, nor of jax, can be imported.
ALONE = """
import runpy, sys
for name in ("ofa_jax", "jax", "flax", "cv2"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A random subnet of digits, and photographs of several sizes."""
    pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)
    _, variables = random_variables(space)
    arch = space.smallest()
    _, own = ofa_jax.extract(space, variables, arch)
    card = {**CARD.__dict__, "arch": space.arch_to_dict(arch), "classes": tuple("0123456789"),
            "preprocessing": preprocessing(DIGITS.data, 16)}  # fmt: skip
    directory = tmp_path_factory.mktemp("run")
    write_subnet(directory / "subnets/mine", space, own, type(CARD)(**card))
    (directory / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate([(16, 16), (61, 40), (40, 61), (200, 150), (19, 19), (9, 12)]):
        channels = 4 if i == 2 else 3  # one is transparent
        pixels = np.clip(rng.normal(128, 60, (4, 5, channels)), 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        image.save(directory / f"photos/{i}.png")
    return directory


def lines_of(text):
    """[(image, {class: percent})] of lines as `predict` prints them."""
    found = []
    for line in text.splitlines():
        path, *classes = line.split("  ")
        shares = dict(words.split(" ") for words in classes)
        found.append((Path(path).name, {k: float(v.rstrip("%")) for k, v in shares.items()}))
    return found


def check_same(found, wanted, points):
    """The same classes in the same order, except for ties."""
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        assert max(ours, key=ours.get) == max(theirs, key=theirs.get)
        common = ours.keys() & theirs.keys()
        assert len(common) >= 4
        assert all(abs(ours[name] - theirs[name]) <= points for name in common), (ours, theirs)


def predicted(workdir, capsys):
    capsys.readouterr()
    predict(workdir / "subnets/mine", str(workdir / "photos"))
    return lines_of(capsys.readouterr().out)


@pytest.mark.parametrize("uint8", [False, True])
def test_onnx_predict_needs_three_libraries(workdir, uint8, capsys):
    export(DIGITS, workdir, "mine", ["onnx"], uint8=uint8, overwrite=True)
    photos = sorted((workdir / "photos").iterdir())
    program = [PROGRAM, workdir / "subnets/mine", *photos]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    check_same(lines_of(done.stdout), predicted(workdir, capsys), points=0.011)
