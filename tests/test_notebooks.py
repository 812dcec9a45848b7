"""The notebooks: run from top to bottom in a copy of the repository, and as they are committed."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from main_runs import REPOSITORY, SAFETY, compiled_environment

pytestmark = pytest.mark.slow  # each trains a supernet

NAMES = ("quickstart", "your_data")
LARGEST = 400_000  # bytes of a committed notebook


def read(path):
    return json.loads(path.read_text())


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def streams(cell, name):
    """What a cell wrote to stdout or stderr."""
    outputs = [o for o in cell["outputs"] if o["output_type"] == "stream" and o["name"] == name]
    return "".join("".join(output["text"]) for output in outputs)


def printed(notebook, tag):
    """What the cell of that tag wrote to stdout."""
    (cell,) = [c for c in code_cells(notebook) if tag in c["metadata"].get("tags", ())]
    return streams(cell, "stdout")


def pictures(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return [output for output in outputs if "image/png" in output.get("data", ())]


def execute(name, directory):
    """Runs a copy of a notebook in a copy of the repository, its workdir there too."""
    for part in ("configs", "notebooks", "ofa_jax"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(REPOSITORY / part, directory / part, ignore=ignored)
    shutil.copy(REPOSITORY / "main.py", directory)
    path = directory / "notebooks" / f"{name}.ipynb"
    notebook = path.read_text().replace(f"/tmp/{name}", str(directory / "work"))
    path.write_text(notebook)
    own = {key: str(directory / "jupyter") for key in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR",
           "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}  # fmt: skip
    # The kernel's environment is not on the PATH: commands must not find their Python there.
    environment = {**os.environ, **own, "PATH": os.defpath, **compiled_environment()}
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to=notebook", "--execute", "--inplace", str(path)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=SAFETY,
    )
    assert done.returncode == 0, done.stderr
    return read(path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return {name: execute(name, tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_and_warns_of_nothing(executed, name):
    for cell in code_cells(executed[name]):
        error = streams(cell, "stderr")
        assert not re.search("Warning|Traceback|Error", error), error
        assert not re.search("Warning|Traceback|^error", streams(cell, "stdout"), re.MULTILINE)


def test_the_quickstart_tells_what_it_says(executed):
    notebook = executed["quickstart"]
    assert "supernet written to" in printed(notebook, "train")
    before, after = (float(x) for x in re.findall(r"top-1 (.*)%", printed(notebook, "calibrate")))
    assert after > max(before, 80)  # guessing gets 10
    largest = re.search("masked and extracted: (.*)", printed(notebook, "difference"))
    assert float(largest[1]) < 1e-4
    right = re.search("(.*) of 360 test images are right", printed(notebook, "predict"))
    assert int(right[1]) > 320
    assert printed(notebook, "export").count("of the subnet's logits") == 2
    assert printed(notebook, "onnx") == "same classes: 360 of 360\n"
    assert "kernels (3, 5): 17,173,512 subnets" in printed(notebook, "space")
    assert len(pictures(notebook)) == 4


def test_your_data_keeps_the_budget(executed):
    notebook = executed["your_data"]
    assert "photos: 10 classes" in printed(notebook, "train")
    assert "within the budget: True" in printed(notebook, "budget")
    assert re.search(
        "mine-finetuned: held-out top-1 .* after 1 epoch;", printed(notebook, "finetune")
    )
    assert "model.tflite" in printed(notebook, "export")
    timed = {line.split()[0] for line in printed(notebook, "benchmark").splitlines()}
    assert timed >= {"JAX", "LiteRT"}
    assert len(printed(notebook, "predict").splitlines()) == 20
    right = re.search("(.*) of 20 are right", printed(notebook, "pictures"))
    assert int(right[1]) >= 15
    assert len(pictures(notebook)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_committed_with_the_outputs_of_one_run(executed, name):
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    cells = code_cells(read(path))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["metadata"].keys() <= {"tags"} for cell in cells)
    assert [kinds(cell) for cell in cells] == [kinds(cell) for cell in code_cells(executed[name])]
    for cell in cells:
        written = json.dumps(cell["outputs"])
        assert not re.search("site-packages|/root/|/home/|/work/|Traceback|Warning", written)


def kinds(cell):
    return {output["output_type"] for output in cell["outputs"]}
