"""Commands and Python of the README and of docs/ run as written, in a new user's directory."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from main_runs import SAFETY, compiled_environment, write_digits, write_folder
from PIL import Image
from random_nets import random_images

import ofa_jax

REPOSITORY = Path(__file__).parents[1]
ROW = r"<tr><td>(.*?)</td><td>([\d.]+) %</td></tr>"  # of the page in docs/classify.html
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = [
    (page.name, *block)
    for page in PAGES
    for block in re.findall(r"```(bash|python)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
]
WHOLE_PYTHON = {("python", "runtimes.md"), ("python", "spaces.md")}  # it builds on itself
# What is run elsewhere, or needs what is not here; by a word of the block.
ELSEWHERE = {
    "&& pytest": "continuous integration runs it",
    "gcloud": "needs TPU VMs and a cluster",
    "configs/cifar10.py": "needs a dataset: tests/test_end_to_end.py brings one",
    "gs://": "needs a bucket: tests/run/test_in_bucket.py has one",
    "--target=v5e": "needs the TPU compiler: tests/run/test_tpu.py",
    "benchmarks.": "tests/test_benchmarks.py",
    "runs/longer": "trains for long: tests/run/test_config_reference.py looks at its fields",
    "ofa_jax.interop": "needs published weights: tests/interop/test_main.py",
    "configs/specialise.py:ofa_mbv3": "needs weights and data: tests/test_from_pytorch.py",
    "configs/transfer.py": "needs another run: tests/train/test_fields.py",
    "python -m faults": "tests/test_faults.py",
    "http.server": "test_the_page_classifies_an_image",
    "@litertjs": "test_the_page_classifies_an_image",
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


def elsewhere(text):
    return any(word in text for word in ELSEWHERE)


def run_here(kind):
    """The blocks of a kind that belong to the runs on digits."""
    blocks = [(page, text) for page, k, text in BLOCKS if k == kind and not elsewhere(text)]
    return [text for page, text in blocks if "runs/" in text or (kind, page) in WHOLE_PYTHON]


def test_every_command_is_run_somewhere():
    for _, kind, text in BLOCKS:
        assert kind == "python" or "runs/" in text or elsewhere(text), text
    for word in ELSEWHERE:
        assert any(word in text for _, _, text in BLOCKS), f"nothing of {word!r} is left"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A checkout of the repository with a quick config, in which the commands are run."""
    directory = tmp_path_factory.mktemp("home")
    (directory / "configs").mkdir()
    path = str(REPOSITORY / "configs/digits.py")
    (directory / "configs/digits.py").write_text(QUICK.format(path=path))
    (directory / "main.py").symlink_to(REPOSITORY / "main.py")
    (directory / "configs/specialise.py").symlink_to(REPOSITORY / "configs/specialise.py")
    write_digits(directory / "photos", suffix=".jpg")
    write_folder(directory / "birds")
    (directory / "docs").symlink_to(REPOSITORY / "docs")
    return directory


def run_bash(text, directory):
    """Runs a block of commands, but for the installation, in a directory."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = re.sub(r"^pip install -e \S+( && |\n)", "", text, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=directory,
        env={**os.environ, **compiled_environment(), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def used(home):
    """The directory after all commands."""
    for text in run_here("bash"):
        run_bash(text, home)
    return home


@pytest.mark.slow
def test_the_commands_run(used):
    made = {path.name for path in (used / "runs/digits/subnets/smallest-finetuned").iterdir()}
    assert {"model.stablehlo", "model.onnx", "model.int8.onnx", "model.tflite"} < made
    # What the README says comes out, comes out.
    listed = re.search(r"    runs/digits/\n(.*?)\n\n", TEXT, re.DOTALL)[1]
    for line in listed.splitlines():
        for name in line[6:28].replace(",", " ").split():
            assert (used / "runs/digits" / name.split("<")[0]).exists(), name
    for run, file in (("birds", "model.onnx"), ("phone", "model.tflite")):
        (made,) = (used / "runs" / run / "subnets").glob(f"macs-*-finetuned/{file}")
    the_python(used)


@pytest.fixture(scope="module")
def page(used):
    """The page and all that its two runtimes need, with an image beside it."""
    (text,) = [text for _, _, text in BLOCKS if "http.server" in text]
    *commands, serve = text.splitlines()
    assert serve == "python -m http.server --directory page 8000"
    run_bash("\n".join(commands), used)
    (text,) = [text for _, _, text in BLOCKS if "@litertjs" in text]
    run_bash(text, used)
    shutil.copy(next((used / "birds/bird7").iterdir()), used / "page/image.png")
    return used / "page"


@pytest.mark.slow
@pytest.mark.skipif(not (BROWSER and shutil.which("npm")), reason="no chromium or npm on the PATH")
@pytest.mark.parametrize("query", ["", "&format=tflite"], ids=["ONNX Runtime", "LiteRT"])
def test_the_page_classifies_an_image(page, query):
    (subnet,) = (page.parent / "runs/birds/subnets").glob("macs-*-finetuned")
    card = json.loads((subnet / "card.json").read_text())
    ranked = re.findall(ROW, shown_by_browser(page, query))
    assert len(ranked) == min(5, len(card["classes"]))
    subnet_of, variables = ofa_jax.load_subnet(subnet)
    steps, size = card["preprocessing"], card["resolution"]
    side = steps["resize_shorter_side"]  # of a square image
    image = Image.open(page / "image.png").convert("RGB")
    pixels = image.resize((side, side), Image.Resampling.BILINEAR)
    start = (side - size) // 2
    pixels = pixels.crop((start, start, start + size, start + size))
    pixels = (np.asarray(pixels, np.float32)[None] / 255 - steps["mean"]) / steps["std"]
    shares = jax.nn.softmax(subnet_of.apply(variables, np.float32(pixels)))[0]
    for name, percent in ranked:
        assert abs(float(percent) / 100 - shares[card["classes"].index(name)]) < 0.003


def shown_by_browser(directory, query):
    """The page for image.png as Chromium shows it, served from its directory."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}/?image=image.png{query}"
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                   "--disable-background-networking", f"--user-data-dir={directory / 'browser'}",
                   "--virtual-time-budget=30000", "--dump-dom", address]  # fmt: skip
        for _ in range(20):  # virtual time may end before the network is loaded
            done = subprocess.run(command, capture_output=True, text=True, timeout=SAFETY)
            if re.search(ROW, done.stdout):
                break
        server.shutdown()
    return done.stdout


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
    assert names["front"].found
    assert names["logits"].shape == (200, 10)  # of docs/getting_started.md
    assert names["predicted"].shape == (200,)
    wanted = names["onnx_logits"]
    assert wanted.shape == (len(names["paths"]), 10)
    for runtime in ("litert_logits", "stablehlo_logits"):
        np.testing.assert_allclose(names[runtime], wanted, atol=1e-4 * np.abs(wanted).max())


def anchors(page):
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


LINKING = [
    *PAGES,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted((REPOSITORY / "notebooks").glob("*.ipynb")),
]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        place, _, anchor = target.partition("#")
        if not place.startswith("http"):
            linked = page.parent / place if place else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_named_files_exist(page):
    roots = "benchmarks|configs|docs|notebooks|ofa_jax|tests"
    for name in re.findall(rf"`((?:{roots})/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (REPOSITORY / name).exists(), name
