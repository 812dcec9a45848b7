"""Commands and Python of the README and of docs/ run as written, in a new user's directory."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from main_runs import compiled_environment, write_digits
from random_nets import random_images

import ofa_jax

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL)
# What is run elsewhere, or needs what is not here; by a word of the block.
ELSEWHERE = {
    "&& pytest": "continuous integration runs it",
    "gcloud": "needs TPU VMs and a cluster",
    "configs/cifar10.py": "needs a dataset: tests/test_end_to_end.py brings one",
    "--target=v5e": "needs the TPU compiler: tests/train/test_tpu.py",
    "benchmarks.": "tests/test_benchmarks.py",
    "runs/longer": "trains for long: tests/test_config_reference.py looks at its fields",
    "ofa_jax.interop": "needs published weights: tests/interop/test_main.py",
    "configs/specialise.py:ofa_mbv3": "needs weights and data: tests/test_from_pytorch.py",
    "configs/transfer.py": "needs another run: tests/train/test_fields.py",
    "python -m faults": "tests/test_faults.py",
}
# configs/digits.py as it is, but for how long it takes.
QUICK = """
import importlib.util
spec = importlib.util.spec_from_file_location("digits", {path!r})
digits = importlib.util.module_from_spec(spec)
spec.loader.exec_module(digits)
def get_config():
    config = digits.get_config()
    config.phases.oneshot.update(epochs=1.0, warmup_epochs=0.0)
    config.train.compute = "masks"  # compiles faster
    config.search.update(archs=20, generations=20, random_archs=4, winners=1, least_tau=-1.0)
    config.finetune.epochs = 1.0
    return config
"""


def run_here(kind):
    """The blocks of a kind that belong to the run on digits."""
    return [text for k, text in BLOCKS if k == kind and "runs/digits" in text]


def test_every_command_is_run_somewhere():
    for kind, text in BLOCKS:
        elsewhere = [word for word in ELSEWHERE if word in text]
        assert kind == "python" or "runs/digits" in text or elsewhere, text
    for word in ELSEWHERE:
        assert any(word in text for kind, text in BLOCKS), f"nothing of {word!r} is left"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the repository is checked out, with a quick config, and everything was run."""
    directory = tmp_path_factory.mktemp("home")
    (directory / "configs").mkdir()
    path = str(REPOSITORY / "configs/digits.py")
    (directory / "configs/digits.py").write_text(QUICK.format(path=path))
    (directory / "main.py").symlink_to(REPOSITORY / "main.py")
    (directory / "configs/specialise.py").symlink_to(REPOSITORY / "configs/specialise.py")
    write_digits(directory / "photos", suffix=".jpg")
    return directory


@pytest.mark.slow
def test_the_commands_run(home):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for text in run_here("bash"):
        command = re.sub(r"^pip install -e \S+( && |\n)", "", text, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=home,
            env={**os.environ, **compiled_environment(), "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    made = {path.name for path in (home / "runs/digits/subnets/smallest-finetuned").iterdir()}
    assert {"model.stablehlo", "model.onnx", "model.int8.onnx", "model.tflite"} < made
    # What the README says comes out, comes out.
    listed = re.search(r"    runs/digits/\n(.*?)\n\n", TEXT, re.DOTALL)[1]
    for line in listed.splitlines():
        for name in line[6:28].replace(",", " ").split():
            assert (home / "runs/digits" / name.split("<")[0]).exists(), name
    the_python(home)


def the_python(home):
    """The Python of the README, one block after the other."""
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)
    images = random_images(space, 8)
    names = {"images": images, "batches": [images], "functools": functools, "jax": jax}
    before = Path.cwd()
    os.chdir(home)
    try:
        for text in run_here("python"):
            exec(compile(text, "README.md", "exec"), names)
    finally:
        os.chdir(before)
    assert names["logits"].shape == (8, 10)
    assert names["front"].found


def anchors(page):
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        place, _, anchor = target.partition("#")
        if not place.startswith("http"):
            linked = page.parent / place if place else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target
