"""Benchmarks run, shortened, and give figures."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from main_runs import SAFETY
from PIL import Image

from benchmarks import checkpoints, grey_folder, latency_table, recipes
from benchmarks.scaling import reduced_bytes
from ofa_jax import mesh
from ofa_jax.deploy import stablehlo

REPOSITORY = Path(__file__).parents[1]
PUBLISHED = REPOSITORY.parent / "shared/data/once_for_all"
CIFAR10 = REPOSITORY.parent / "shared/data/tfds/cifar10"


def test_a_latency_table_replaces_no_file(tmp_path, monkeypatch, capsys):
    theirs = tmp_path / "notes.json"
    theirs.write_text("theirs")
    flags = ("--space=ofa_tiny_d123_e346_k357", "--resolutions=16", f"--out={theirs}")
    monkeypatch.setattr(sys, "argv", ["latency_table", *flags])
    with pytest.raises(SystemExit) as end:
        latency_table.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: --out={theirs} exists: give a new file\n"
    assert theirs.read_text() == "theirs"


def test_recipes_in_the_file_are_drawn_and_not_run_again(tmp_path, monkeypatch, capsys):
    rows, pictures = tmp_path / "rows.json", [tmp_path / "macs.png", tmp_path / "budgets.png"]
    shutil.copy(REPOSITORY / "docs/results/cifar10_16.json", rows)
    monkeypatch.setattr(recipes, "run_one", lambda *_: pytest.fail("a known run is run again"))
    monkeypatch.setattr(recipes.compiled, "keep", lambda: None)
    monkeypatch.setattr(sys, "argv", [
        "recipes", "--data-dir=none", "--passes=4.5", "--recipes=halves,oneshot", f"--json={rows}",
        f"--picture={pictures[0]}", f"--budgets-picture={pictures[1]}",
    ])  # fmt: skip
    recipes.main()
    row = r"\| halves \|  \| 3 \| 4.5 \| 46.70% ± 0.68 \|.* \| 54.49% ± 0.38 \| 39.68% ± 0.72 \|"
    assert re.search(row, capsys.readouterr().out)
    for picture in pictures:
        drawn = np.asarray(Image.open(picture).convert("RGB"))
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50  # points, lines and a legend


@pytest.mark.slow
def test_checkpoints(tmp_path, monkeypatch, capsys):
    figures, workdir = tmp_path / "figures.json", tmp_path / "saves"
    monkeypatch.setattr(sys, "argv", [
        "checkpoints", "--space=ofa_tiny_d123_e346_k357", "--classes=10", "--saves=2",
        f"--workdir={workdir}", f"--json={figures}",
    ])  # fmt: skip
    checkpoints.main()
    report = json.loads(figures.read_text())
    parameters = 614_698  # of the largest net, and as many momenta; statistics are few
    assert report["megabytes"] == pytest.approx(8 * parameters / 1e6, rel=0.1)
    waits, sealed, restored = report["seconds"].values()
    assert len(waits) == len(sealed) == len(restored) == 2
    assert all(0 < wait < seal for wait, seal in zip(waits, sealed, strict=True))
    assert not workdir.exists()
    workdir.mkdir()
    with pytest.raises(SystemExit) as end:
        checkpoints.main()
    assert end.value.code == 2
    assert f"--workdir={workdir} exists: give a new folder" in capsys.readouterr().err


@pytest.mark.slow
def test_input_pipeline(tmp_path):
    figures = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "benchmarks.input_pipeline", f"--json={figures}", "--seconds=1",
        "--rounds=1", "--batch_size=16", "--batches=300",
    ]  # fmt: skip
    process = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SAFETY
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(figures.read_text())
    assert len(report["images_per_second"]) == 4
    assert all(speed > 0 for speed in report["images_per_second"].values())
    (_, early), *_, (made, late) = report["megabytes_0_workers"]
    assert made == 300
    assert late < 1.1 * early
    assert "to float32" in process.stdout


def run_benchmark(name, tmp_path, *flags):
    """Runs a benchmark as a user does; returns what it printed and its JSON."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", f"--json={figures}", *flags]
    process = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SAFETY
    )
    assert process.returncode == 0, process.stderr
    return process.stdout, json.loads(figures.read_text())


@pytest.mark.slow
def test_depthwise(tmp_path):
    flags = ["--space=ofa_tiny_d123_e346_k357", "--resolution=8", "--kernels", "3", "--repeats=1"]
    printed, report = run_benchmark("depthwise", tmp_path, *flags, "--against-once-for-all")
    assert set(report["sums"]) == {"ofa_jax", "PyTorch, as shipped", "PyTorch, tuned"}
    assert "32x4x4x144, 3, 1" in report["milliseconds"]
    assert all(figure > 0 for sums in report["sums"].values() for figure in sums)
    assert "to ofa_jax" in printed


@pytest.mark.slow
def test_train_step(tmp_path):
    flags = ["--space=ofa_tiny_d123_e346_k357", "--resolution=16", "--batch_size=4", "--rounds=1",
             "--steps=1", "--warm=1", "--subnets=1", "--compute=masks"]  # fmt: skip
    printed, report = run_benchmark("train_step", tmp_path, *flags)
    row = report["rows"]["ofa_jax, masks"]
    assert row["images_per_second"] == 4 / row["step"] * 1e3
    assert set(row) >= {"step", "largest", "random", "smallest", "random_to_largest"}
    assert report["megabytes"]["ofa_jax, masks"] > 1
    assert "random/largest" in printed


@pytest.mark.slow
def test_evaluate_subnets(tmp_path):
    flags = ["--space=ofa_tiny_d123_e346_k357", "--resolution=16", "--subnets=2", "--repeats=1",
             "--batch_size=4", "--calibration_images=4", "--test_images=8"]  # fmt: skip
    _, report = run_benchmark("evaluate_subnets", tmp_path, *flags)
    names = {"ofa_jax, branches", "ofa_jax, masks", "ofa_jax, masks, vmapped"}
    assert set(report["seconds_a_subnet"]) == names


@pytest.mark.slow
def test_export(tmp_path):
    flags = ["--resolution=96", "--subnets=1", "--threads", "1", "--rounds=1", "--steps=3"]
    printed, report = run_benchmark("export", tmp_path, *flags)
    (row,) = report["rows"]
    assert set(row["ms"]) == {
        "ONNX, ofa_jax", "ONNX, PyTorch's exporter", "TFLite, ofa_jax", "PyTorch, eager",
        "JAX subnet", "StableHLO, ofa_jax",
    }  # fmt: skip
    assert all(ms > 0 for ms in row["ms"].values())
    assert "ours to theirs" in printed


@pytest.mark.slow
def test_jax_versions(tmp_path):
    """The oldest release that a card promises loads every file, the one before it none."""
    oldest = stablehlo.oldest_jax(None, jax.__version__)
    before = {"0.8.2": "0.8.1", "0.11.0": "0.10.2"}[oldest]
    _, report = run_benchmark("jax_versions", tmp_path, "--versions", before, oldest)
    assert [row["jax"] for row in report["rows"]] == [before] * 4 + [oldest] * 4
    for row in report["rows"]:
        assert row["promised"] == ("difference" in row), row
        assert row.get("difference", 0) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the reference's tables are not here")
def test_search(tmp_path):
    flags = [f"--data={PUBLISHED}", "--population=20", "--generations=200", "--seeds=1"]
    printed, report = run_benchmark("search", tmp_path, *flags, "--against-once-for-all")
    assert min(report["once-for-all"], report["one"]) > 0
    for scores in (report["scores"], report["once-for-all scores"]):
        assert all(0.7 < value < 0.9 for values in scores.values() for value in values)
    assert len(report["front lacks"]) == 16
    assert max(report["front lacks"]) < 0.001  # 3,200 x 500 against 20 x 200
    assert "times as long" in printed


def test_scaling_reads_what_the_devices_sum():
    devices = mesh.data_mesh(4)
    shapes = {"a": (3, 5), "b": (7,)}

    @jax.jit
    @functools.partial(jax.shard_map, mesh=devices, in_specs=P(), out_specs=P())
    def mean(tree):
        varying = jax.lax.pcast(tree, mesh.AXIS, to="varying")
        return jax.lax.pmean(varying, mesh.AXIS)

    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    program = mean.lower(mesh.replicate(devices, arrays)).compile().as_text()
    count, summed = reduced_bytes(program)
    assert count >= 1
    assert summed == 4 * (15 + 7)


@pytest.mark.skipif(not CIFAR10.exists(), reason="CIFAR-10 is not here")
def test_a_folder_of_grey_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [
        "grey_folder", f"--data-dir={CIFAR10.parent}", "--name=cifar10", "--splits=train,test",
        "--images=3,1", f"--out={tmp_path}",
    ])  # fmt: skip
    grey_folder.main()
    assert capsys.readouterr().out == (
        "train: 30 images of 10 classes\ntest: 10 images of 10 classes\n"
    )
    images = sorted(tmp_path.glob("*/*/*.png"))
    assert len(images) == 40
    for path in images:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((28, 28), "L")
    strip = np.zeros((20, 40, 3), np.uint8)
    strip[:, 10:30] = 100, 200, 50
    grey = round(0.299 * 100 + 0.587 * 200 + 0.114 * 50)  # of BT.601
    np.testing.assert_array_equal(grey_folder.square(strip, 10), np.full((10, 10), grey))


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.exists(), reason="CIFAR-10 is not here")
def test_transfer(tmp_path):
    flags = [f"--data-dir={CIFAR10.parent}", f"--workdir={tmp_path / 'runs'}", "--passes=4",
             "--source-passes=0.2", "--shares=0.5", "--seeds=0", "--archs=2",
             "--config.data.resolutions=(16,)", "--config.train.compute=masks"]  # fmt: skip
    printed, report = run_benchmark("transfer", tmp_path, *flags)
    assert [row["recipe"] for row in report["rows"]] == ["halves", "transfer"]
    for row in report["rows"]:
        assert row["passes"] == pytest.approx(2, rel=0.1)
        assert row["smallest"] > 0.12  # of the digits; guessing gets 0.1
    assert "starting from" in printed
    printed, again = run_benchmark("transfer", tmp_path, *flags)
    assert again["rows"] == report["rows"]
    assert "starting from" not in printed
