"""The wheel, built from the source distribution, by itself, outside the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = """
import jax, numpy as np, ofa_jax
space = ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)
net = ofa_jax.build_supernet(space)
variables = jax.jit(net.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), "f"), space.largest())
subnet, own = ofa_jax.extract(space, variables, space.smallest())
print(ofa_jax.__file__, jax.jit(subnet.apply)(own, np.zeros((2, 16, 16, 3), "f")).shape)
"""


PACK = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", PACK, directory]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (source,) = directory.glob("ofa_jax-*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", directory, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(directory.glob("ofa_jax-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ofa_jax"}
    assert "ofa_jax/py.typed" in names
    wanted = {str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "ofa_jax").rglob("*.py")}
    assert wanted == {name for name in names if name.endswith(".py")}


@pytest.mark.slow
def test_the_wheel_runs_a_subnet(wheel, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target"]
    subprocess.run([*command, tmp_path / "site", wheel], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1)[0] == str(tmp_path / "site/ofa_jax/__init__.py")
    assert "(2, 10)" in done.stdout
    command = tmp_path / "site/bin/ofa-jax"  # needs no clone
    done = subprocess.run(
        [sys.executable, command, "--mode=predict", "--subnet=none", "--images=none.jpg"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "error: --subnet='none': expected a subnet's directory" in done.stderr


SELDOM = ("matplotlib", "onnx", "scipy.stats", "sklearn", "tensorflow_datasets", "torch")


def test_a_command_starts_without_what_it_may_never_need():
    script = f"import sys, main; print([name for name in {SELDOM} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr
