"""`main.py` as a user runs it: configs/smoke.py through every mode, killed, resumed and misused."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
import stand_in
from cards import SUBNET_FILES
from main_runs import SAFETY, SMALL, SMOKE, run, run_forks, start, wait_for, write_digits
from PIL import Image
from random_nets import identical

import ofa_jax
from ofa_jax.normalization import normalize_images
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.pipeline import evaluation_batches
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.run.groups.subnets import FORMATS

PHASES = ["full", "kernel", "depth", "expand1", "expand2"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    code, out, error = run("--config=configs/smoke.py", f"--workdir={workdir}")
    assert code == 0, error
    return workdir, out


def test_the_whole_job(smoke):
    workdir, out = smoke
    assert "training step compiled 1 time: 16 px" in out
    assert [
        line.split()[1].rstrip(":") for line in out.splitlines() if line.startswith("phase ")
    ] == PHASES
    rows = json.loads((workdir / "evaluation.json").read_text())["subnets"]
    assert len(rows) == 8
    assert {"largest", "smallest"} < {row["name"] for row in rows}
    accuracy = {row["name"]: row["top1"] for row in rows}
    assert accuracy["largest"] > 0.9  # 360 real test images; guessing gets 0.1
    assert accuracy["smallest"] > 0.5
    assert all(
        set(row) == {"name", "arch", "resolution", "split", "top1", "loss", "macs", "params"}
        for row in rows
    )
    subnet = workdir / "subnets" / "smallest"
    assert {p.name for p in subnet.iterdir()} == SUBNET_FILES
    (deployed,) = (workdir / "subnets").glob("*-finetuned")
    assert (deployed / "model.stablehlo").is_file()
    card = json.loads((deployed / "card.json").read_text())
    assert card["finetuned"]["from"] == deployed.name.removesuffix("-finetuned")
    assert card["finetuned"]["after"] == card["accuracy"]
    assert card["exports"]["stablehlo"]["difference"] < 1e-5
    assert f"stablehlo: {deployed / 'model.stablehlo'}" in out


def test_the_search(smoke):
    workdir, out = smoke
    search = workdir / "search"
    found = json.loads((search / "found.json").read_text())
    (row,) = found["found"]
    assert {p.name for p in search.iterdir()} == {
        "measured.jsonl", "predictor.npz", "front.json", "front.png", "found.json",
        f"{row['name']}.json",
    }  # fmt: skip
    assert f"{row['name']}" in out
    space, _, _ = ofa_jax.load_supernet(workdir / "supernet")
    arch = space.arch_from_dict(row["arch"])
    assert row["macs"] == int(ofa_jax.macs(space, arch, 16))
    assert row["name"] == f"macs-{row['macs'] / 1e6:.4g}M"
    assert 0 <= row["held_out"] <= 1
    assert len(found["random"]) == 4
    measured = [json.loads(line) for line in (search / "measured.jsonl").read_text().splitlines()]
    assert sorted(m["index"] for m in measured) == list(range(20))
    assert measured[0]["arch"] == space.arch_to_dict(space.smallest())
    front = json.loads((search / "front.json").read_text())
    costs, scores = ([f[key] for f in front["front"]] for key in ("macs", "predicted"))
    assert costs == sorted(costs)
    assert scores == sorted(scores)
    assert 0 < front["hypervolume"] < 1
    predictor = ofa_jax.search.load_predictor(search / "predictor.npz", space)
    assert float(predictor(arch, 16)) == pytest.approx(row["predicted"])
    card = json.loads((workdir / "subnets" / row["name"] / "card.json").read_text())
    assert card["arch"] == row["arch"]


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_others_follow(smoke, tmp_path):
    workdir = shutil.copytree(smoke[0], tmp_path / "run")
    measured = workdir / "search/measured.jsonl"
    lines = measured.read_text().splitlines(True)
    measured.write_text("".join(lines[:7]) + lines[7][:20])  # killed while it wrote
    flags = (SMOKE, f"--workdir={workdir}", "--mode=search")
    code, out, error = run(*flags, "--config.search.constraints=(6e5, 1e9)")
    assert code == 0, error
    assert "7 subnets were measured before" in out
    assert measured.read_text() == "".join(lines)
    rows = json.loads((workdir / "search/found.json").read_text())["found"]
    assert [row["macs"] <= limit for row, limit in zip(rows, (6e5, 1e9), strict=True)] == [True] * 2
    code, out, error = run(*flags, "--config.search.resolutions=(20,)")
    assert code == 0, error
    assert "measured before" not in out
    assert measured.read_text().startswith("".join(lines))  # for a search at 16 px again
    assert len(measured.read_text().splitlines()) == 2 * len(lines)
    code, _, error = run(*flags, "--config.search.constraints=(1000.0,)")
    assert code == 2
    assert error.startswith("error: constraint 1000.0 cannot be met: the least is ")
    assert error.count("\n") == 1
    code, _, error = run(*flags, "--config.search.least_tau=1.0")
    assert code == 2
    assert "below search.least_tau=1.0: more search.archs than 20 may mend it" in error


def test_every_step_is_logged_once(smoke):
    workdir, _ = smoke
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [r for r in records if r["group"] == "train"]
    assert [r["step"] for r in train] == list(range(1, 153))
    assert all(np.isfinite([r["loss"], r["gradient_norm"]]).all() for r in train)
    assert train[-1]["learning_rate"] < train[-10]["learning_rate"]
    assert [r["phase"] for r in records if r["group"] == "held_out"] == PHASES
    assert list((workdir / "tb").iterdir())


def test_the_same_command_again_does_nothing(smoke):
    workdir, _ = smoke
    before = written_at(workdir)
    code, out, error = run("--config=configs/smoke.py", f"--workdir={workdir}")
    assert code == 0, error
    assert "training is complete: 152 steps" in out
    assert "compiled" not in out
    assert written_at(workdir) == before


def written_at(workdir):
    """When each file of a run was written, but for the lock, which names the last process."""
    files = (path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_a_dataset_of_tfds_that_nobody_knew(tmp_path):
    """28x28, one channel: prepared by tfds, trained by overrides of `data` alone, two workers."""
    stop = stand_in.serve(tmp_path)
    load_dataset(DataConfig(name="stand_in", data_dir=str(tmp_path), held_out=9))
    stop()
    code, out, error = run(
        SMALL,
        f"--workdir={tmp_path / 'run'}",
        "--config.data.name=stand_in",
        f"--config.data.data_dir={tmp_path}",
        "--config.data.batch_size=16",
        "--config.data.held_out=9",
        "--config.data.workers=2",
        "--config.curriculum=('full',)",
        "--config.phases.full.epochs=4.0",
        "--mode=train",
    )
    assert code == 0, error
    assert (
        "stand_in/1.0.0: 3 classes, images of 28x28x1; 87 to train, 9 held out, 96 to test" in out
    )
    assert re.search(r"phase full: 20 steps in \d:\d\d, waited for data \d+.\d%, held-out", out)
    assert "Warning" not in error, error
    space, _, variables = ofa_jax.load_supernet(tmp_path / "run/supernet")
    assert space.num_classes == 3
    assert variables["params"]["classifier"]["kernel"].shape == (64, 3)


@pytest.mark.slow
def test_classes_of_any_script_where_the_system_knows_ascii(tmp_path):
    """A folder as people have it: what is left out is reported, and `test` has no classes."""
    names, count = ("ü", "猫", "🦉 'owl'"), 0
    digits = load_dataset(DataConfig())
    for number, example in enumerate(digits.train[i] for i in range(400)):
        if example["label"] < 3:
            folder = tmp_path / "data/train" / names[example["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example["image"][..., 0]).save(folder / f"größe {number}.tiff")
            count += 1
    (tmp_path / "data/train/ü/notes.txt").touch()
    (tmp_path / "data/test").mkdir()
    (tmp_path / "data/test/1.png").touch()
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    workdir = tmp_path / "a run of 100%, 'mine'"
    flags = (
        SMALL, f"--workdir={workdir}", "--mode=train", f"--config.data.name={tmp_path / 'data'}",
        "--config.data.batch_size=16", "--config.data.held_out=9", "--config.curriculum=('full',)",
    )  # fmt: skip
    code, _, error = run(*flags, **ascii_alone)
    assert code == 2
    assert error.count("\n") == 1
    assert (
        "test has no class folders, but 1 .png outside class folders; data.test_split='n" in error
    )
    code, out, error = run(*flags, "--config.data.test_split=none", **ascii_alone)
    assert code == 0, error
    assert f"3 classes; {count - 18} to train, 9 held out, 9 to t" in out
    assert "; not used: test; left out: 1 .txt\n" in out
    code, out, error = run("--mode=extract", f"--workdir={workdir}", "--arch=smallest",
                           "--name=s", **ascii_alone)  # fmt: skip
    assert code == 0, error
    assert ", ".join(names) in (workdir / "subnets/s/README.md").read_text(encoding="utf-8")
    assert json.loads((workdir / "subnets/s/card.json").read_text())["classes"] == [*names]
    assert (workdir / "report.html").is_file()
    code, out, error = run("--mode=predict", f"--subnet={workdir / 'subnets/s'}",
                           f"--images={tmp_path / 'data/train'}", **ascii_alone)  # fmt: skip
    assert (code, error) == (0, "left out: 1 .txt\n")
    lines = out.splitlines()
    assert len(lines) == count
    for part in ("gr\\xf6\\xdfe", "  \\xfc ", "  \\u732b ", "  \\U0001f989 'owl' "):
        assert all(part in line for line in lines)


def test_a_subnet_of_ones_own_is_extracted_and_restored(smoke):
    workdir, _ = smoke
    arch = {"ks": [5, 3, 7, 5], "e": [3, 4, 6, 3], "d": [1, 2]}
    flags = ("--mode=extract", f"--workdir={workdir}", f"--arch={json.dumps(arch)}")
    code, out, error = run(*flags, "--name=mine")  # no --config: the workdir has its own
    assert code == 0, error
    card = json.loads((workdir / "subnets/mine/card.json").read_text())
    assert card["arch"] == {"ks": [5, None, 7, 5], "e": [3, None, 6, 3], "d": [1, 2]}
    assert card["largest_difference_from_supernet"] < 1e-5
    assert f"top-1 {card['accuracy']['test']['top1']:.2%} on test" in out
    subnet, variables = ofa_jax.load_subnet(workdir / "subnets/mine")
    steps = card["preprocessing"]
    data = DataConfig()
    digits = load_dataset(data)
    (batch,) = evaluation_batches(digits, "test", data, card["resolution"], 360)
    images = normalize_images(batch["image"], tuple(steps["mean"]), tuple(steps["std"]))
    logits = jax.jit(subnet.apply)(variables, images)
    assert (logits.argmax(-1) == batch["label"]).mean() == pytest.approx(
        card["accuracy"]["test"]["top1"]
    )
    before = (workdir / "subnets/mine/card.json").read_bytes()
    code, _, error = run(*flags, "--name=mine")
    assert code == 2
    assert "mine exists: give another --name, or --overwrite" in error
    assert (workdir / "subnets/mine/card.json").read_bytes() == before
    again = workdir / "subnets/mine/arch.json"
    code, out, _ = run("--mode=extract", f"--workdir={workdir}", f"--arch={again}", "--name=twin")
    assert code == 0
    twin = json.loads((workdir / "subnets/twin/card.json").read_text())
    assert twin["accuracy"] == card["accuracy"]


def check_snippets(directory, readme, card):
    """What a card's README says to run, runs in the subnet's own directory: the same logits."""
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    pixels = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    logits = []
    for block, kind in zip(blocks, ("jax", *card["exports"]), strict=True):
        images = pixels.transpose(0, 3, 1, 2) if kind.startswith("onnx") else pixels
        names = {"images": np.ascontiguousarray(images)}
        with contextlib.chdir(directory):
            exec(block, names)
        if not kind.endswith("int8"):
            logits.append((np.asarray(names["logits"]), 5e-3 if kind.endswith("fp16") else 1e-4))
    for other, share in logits[1:]:
        np.testing.assert_allclose(other, logits[0][0], atol=share * np.abs(other).max())


def test_a_subnet_goes_to_every_runtime(smoke, tmp_path):
    workdir, _ = smoke
    flags = (f"--workdir={workdir}", "--subnet=smallest")
    formats = ",".join(FORMATS)
    code, out, error = run("--mode=export", *flags, f"--format={formats}")
    assert code == 0, error
    subnet = workdir / "subnets/smallest"
    card = json.loads((subnet / "card.json").read_text())
    assert ",".join(card["exports"]) == formats
    for name, made in card["exports"].items():
        assert (subnet / made["file"]).stat().st_size == made["bytes"]
        rounded = name.endswith(("fp16", "int8"))
        assert rounded == (made["difference"] > 1e-4) == (made["snr_db"] is not None), name
    top1 = card["accuracy"]["test"]["top1"]
    for name, least in {"fp16": 40, "int8": 15}.items():
        for kind in ("onnx", "tflite"):
            plain, made = card["exports"][kind], card["exports"][f"{kind}-{name}"]
            # A net as small as this has as many bytes of names and scales as of weights.
            assert made["bytes"] < 1.2 * plain["bytes"]
            assert made["snr_db"] > least
            assert abs(made["accuracy"]["top1"] - top1) < 0.1
            assert f"top-1 {made['accuracy']['top1']:.2%} on test, float32 {top1:.2%}" in out
    code, _, error = run("--mode=export", *flags, "--format=onnx")
    assert (code, "model.onnx exists: --overwrite replaces it" in error) == (2, True)

    # Nothing but its directory is needed from here on.
    moved = shutil.copytree(subnet, tmp_path / "moved")
    write_digits(tmp_path / "images")
    flags = ("--mode=predict", f"--subnet={moved}", f"--images={tmp_path / 'images'}")
    code, out, error = run(*flags)
    assert code == 0, error
    lines = [line.split() for line in out.splitlines()]
    assert [Path(line[0]).name for line in lines] == sorted(os.listdir(tmp_path / "images"))
    assert sum(line[1] == Path(line[0]).stem[-1] for line in lines) >= 2
    assert all(float(line[2].rstrip("%")) >= float(line[4].rstrip("%")) for line in lines)
    code, out, error = run("--mode=benchmark", f"--subnet={moved}", "--batch=4")
    assert code == 0, error
    card = json.loads((moved / "card.json").read_text())
    timed = {(row["runtime"], row["batch"]) for row in card["latency"]}
    runtimes = ("JAX", "StableHLO", "ONNX Runtime", "ONNX Runtime fp16", "ONNX Runtime int8",
                "LiteRT", "LiteRT fp16", "LiteRT int8")  # fmt: skip
    assert timed == {(runtime, batch) for runtime in runtimes for batch in (1, 4)}
    assert all(0 < row["median_ms"] <= row["p90_ms"] for row in card["latency"])
    readme = (moved / "README.md").read_text()
    assert f"| top-1, test | {top1:.2%} |" in readme
    assert 'InferenceSession("model.onnx")' in readme
    assert "| LiteRT | 4 |" in readme
    assert (moved / "labels.txt").read_text().split() == card["classes"]
    check_snippets(moved, readme, card)
    for file in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        model = onnx.load(moved / file)
        metadata = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
        assert metadata["classes"] == card["classes"]
        assert metadata["preprocessing"] == card["preprocessing"]
        assert model.doc_string == f"Subnet smallest of {card['space']}, 16 px, by ofa_jax."
    names = [node.name for node in onnx.load(moved / "model.onnx").graph.node]
    assert len({*names, ""}) == len(names) + 1

    (moved / "model.onnx").write_bytes((moved / "model.onnx").read_bytes()[:-1] + b"?")
    code, _, error = run(*flags)
    assert (code, "its file model.onnx is altered or truncated" in error) == (2, True)
    (moved / "model.onnx").unlink()
    code, _, error = run(*flags)
    assert (code, "its file model.onnx is missing" in error) == (2, True)


@pytest.mark.slow
def test_fine_tuning_goes_on_where_it_was_killed(smoke):
    workdir, _ = smoke
    flags = (SMOKE, f"--workdir={workdir}", "--mode=finetune", "--subnet=smallest")
    longer = "--config.finetune.epochs=8"
    process = start(*flags, longer, "--name=killed")
    wait_for(process, workdir / "finetune/killed/metrics.jsonl", 25)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "subnets/killed").exists()
    code, _, error = run(*flags, "--config.finetune.epochs=9", "--name=killed")
    assert (code, "was begun with other finetune settings" in error) == (2, True)
    code, out, error = run(*flags, longer, "--name=killed")
    assert code == 0, error
    assert re.search(r"resumed at step \d+0 of 152", out)
    code, out, error = run(*flags, longer, "--name=whole")
    assert code == 0, error
    assert "compiled the training step for 16 px" in out
    nets = [ofa_jax.load_subnet(workdir / "subnets" / name) for name in ("killed", "whole")]
    assert identical(nets[0][1], nets[1][1])
    card = json.loads((workdir / "subnets/whole/card.json").read_text())["finetuned"]
    before, after = (card[when]["held_out"]["top1"] for when in ("before", "after"))
    assert after > before  # 8 epochs of a net that had seen little
    assert not (workdir / "finetune/whole/checkpoints/finetune").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    code, _, error = run(
        SMALL,
        f"--workdir={tmp_path}",
        "--config.phases.full.lr=1000.0",
        "--config.train.checkpoint_steps=1",
    )
    assert code == 2
    assert "in phase 'full' at step" in error
    assert "Traceback" not in error
    steps = [int(p.name) for p in (tmp_path / "checkpoints/full").iterdir()]
    assert steps  # the last good ones are kept
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(r["step"] for r in logged) == max(steps)


BAD_COMMANDS = [
    (
        (SMOKE, "--config.data.batchsize=3"),
        "unknown field data.batchsize: did you mean data.batch_size? expected",
    ),
    ((SMOKE, "--config.phases.oneshot.lr=3"), "unknown field phases.oneshot: expected depth, "),
    ((SMOKE, "--config.seed.x=3"), "unknown field seed.x: seed has no fields"),
    ((SMOKE, "--config.data.batch_size=many"), "batch_size"),
    (("--config=configs/digit.py",), "configs/digit.py"),
    (
        ("--config=configs/imagenet_mbv3.py:2",),
        "error: imagenet_mbv3.py:2: expected",
    ),
    (
        (SMOKE, "--mode=serach"),
        "--mode='serach': expected one of all, profile, train, evaluate, search, extract, f",
    ),
    (("--mode=predict", "--images=a.png"), "--subnet='': expected a subnet's directory"),
    (("--mode=predict", "--subnet=nowhere"), "--subnet='nowhere': expected a subnet's"),
    ((SMOKE, "--mode=train", "--format=onnx"), "--format is for --mode=export"),
    ((SMOKE, "--config.export.formats=('tf',)"), "export.formats='tf': expected one of stab"),
    ((SMOKE, "--mode=finetune", "--config.finetune.epochs=0.0"), "finetune.epochs=0.0: expect"),
    ((SMOKE, "--config.finetune.lr=-1.0"), "finetune.lr=-1.0: expected 0 to 1000"),
    (
        (SMOKE, "--config.space.name=ofa_x"),
        "space 'ofa_x' is unknown: expected one of ofa_mbv3",
    ),
    ((SMOKE, "--config.phases.kernel.kernels=(5,9)"), "phases.kernel.kernels=(5, 9)"),
    ((SMOKE, "--config.data.name=digit"), "data.name='digit' is no dataset of tfds; did you"),
    (
        (SMOKE, "--config.data.train_split=all"),
        "data.train_split='all': digits has test, train",
    ),
    (
        (SMOKE, "--config.data.batch_size=2000"),
        "data.batch_size=2000: digits has 1257 training",
    ),
    ((SMOKE, "--config.space.num_classes=7"), "space.num_classes=7: digits has 10 classes"),
    ((SMOKE, "--mode=evaluate"), "no checkpoint at"),
    ((SMOKE, "--config.parallel.devices=64"), "parallel.devices=64: there are 1 devices"),
    (
        (SMOKE, "--config.data.batch_size=63", "--config.parallel.micro_steps=2"),
        "data.batch_size=63: expected a multiple of the 1 devices times parallel.micro_steps=2",
    ),
    (
        (SMOKE, "--config.parallel.statistics=global"),
        "parallel.statistics='global' needs subnets='same'",
    ),
    ((SMOKE, "--config.train.dtype=float16"), "train.dtype='float16': expected one of auto, f"),
    ((SMOKE, "--target=v5e:2x2"), "--target='v5e:2x2' is for --mode=profile"),
    ((SMOKE, "--processes=2"), "--process=I go together"),
    ((), "does not exist: give --config"),
    ((SMOKE, "--config.seed=-1"), "seed=-1: expected 0 to 2147483647"),
    ((SMOKE, "--config.data.std=(0.2,0.0,0.2)"), "data.std=(0.2, 0.0, 0.2): expected numbers fr"),
    ((SMOKE, "--config.train.momentum=nan"), "train.momentum=nan: expected a finite number"),
    ((SMOKE, "--config.data.name=gs://bucket/x"), "data.name='gs://bucket/x': expected a local"),
    ((SMOKE, "--config.data.name= "), "data.name=' ': expected 'digits', a folder, or a dataset"),
    ((SMOKE, "--config.data.test_split=train"), "data.test_split='train' has images of data.train"),
    ((SMOKE, "--workdir=$HOME/run"), "--workdir='$HOME/run': no shell has replaced this variable"),
    # What only a later part of the job needs is looked at before the first part begins.
    (
        (SMOKE, "--config.search.constraints=(1000.0,)"),
        "constraint 1000.0 cannot be met: the least",
    ),
    (
        (SMOKE, "--config.search.cost=latency", "--config.search.latency_table=none.json"),
        "no latency table at none.json",
    ),
]


def test_bad_commands_give_one_line_and_leave_no_trace(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    ends = run_forks([(workdir, *flags) for flags, _ in BAD_COMMANDS])
    for (flags, message), (code, _, error) in zip(BAD_COMMANDS, ends, strict=True):
        assert code == 2, (flags, error)
        assert len(error.strip().splitlines()) == 1, error
        assert error.startswith("error: ")
        assert message in error
    assert not (tmp_path / "run").exists()


def test_a_supernet_that_the_run_did_not_make_is_not_replaced(tmp_path):
    precious = tmp_path / "run/supernet/weights"
    precious.parent.mkdir(parents=True)
    precious.write_text("of another run")
    code, _, error = run(SMALL, f"--workdir={tmp_path / 'run'}", "--mode=train")
    assert code == 2
    assert "run/supernet exists, and no checkpoint beside it is of this run: give another" in error
    names = sorted(p.name for p in (tmp_path / "run").rglob("*"))
    assert names == [".lock", "supernet", "weights"]


BAD_NAMES = ("..", "../..", "../../escaped", "/tmp/escaped", "a/b", "nul")


def test_a_name_is_no_way_out_of_the_run(smoke):
    """With --overwrite too: `--name=..` once deleted the whole run."""
    flags = ("--mode=extract", f"--workdir={smoke[0]}", "--arch=smallest", "--overwrite")
    before = sorted(smoke[0].parent.rglob("*"))
    for name, (code, _, error) in zip(
        BAD_NAMES, run_forks([(*flags, f"--name={name}") for name in BAD_NAMES]), strict=True
    ):
        assert (code, f"--name={name!r}: expected a plain name" in error) == (2, True), error
    assert sorted(smoke[0].parent.rglob("*")) == before


BAD_ARCHS = [
    (
        "medium",
        "--arch='medium': expected 'largest', 'smallest', 'published:NAME', a JSON object or a",
    ),
    ('{"ks": 3, "e": 6}', "arch lacks ['d']"),
    ('{"ks": 3, "e": 5, "d": 1}', "arch['e'][0]=5: "),
    ('{"ks": 3', "is not JSON"),
]


def test_bad_archs_give_one_line(smoke):
    flags = ("--mode=extract", f"--workdir={smoke[0]}")
    ends = run_forks([(*flags, f"--arch={arch}") for arch, _ in BAD_ARCHS])
    for (_, message), (code, _, error) in zip(BAD_ARCHS, ends, strict=True):
        assert code == 2, error
        assert len(error.strip().splitlines()) == 1, error
        assert message in error


def test_a_workdir_of_another_config_is_refused(smoke):
    workdir, _ = smoke
    before = (workdir / "config.json").read_bytes()
    code, _, error = run(SMOKE, f"--workdir={workdir}", "--config.seed=5")
    assert code == 2
    assert "belongs to another config: seed is 0 there, 5 here" in error
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(smoke, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(smoke[0], workdir)
    newest = workdir / "checkpoints/expand2/152"
    victim = max((newest / "state").rglob("*"), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-5])
    shutil.rmtree(workdir / "supernet")
    code, out, error = run(SMOKE, f"--workdir={workdir}", "--mode=train")
    assert code == 0, error
    assert re.search(r"expand2/152 cannot be read: .* or truncated; the one before it is used", out)
    assert "resumed phase 'expand2' at step 143 of 152" in out
    _, _, expected = ofa_jax.load_supernet(smoke[0] / "supernet")
    _, _, restored = ofa_jax.load_supernet(workdir / "supernet")
    assert identical(restored, expected)


@pytest.mark.slow
def test_sigterm_saves_and_a_second_run_is_kept_out(tmp_path):
    flags = (
        SMALL, f"--workdir={tmp_path}", "--mode=train", "--config.train.checkpoint_steps=9999",
        "--config.train.dtype=bfloat16", "--config.train.ema=0.9",
        "--config.phases.full.epochs=9999.0",
    )  # fmt: skip
    process = start(*flags)
    wait_for(process, tmp_path / "metrics.jsonl", lines=3)
    code, _, error = run(*flags)
    assert code == 2
    assert f"is in use by another run, process {process.pid}" in error
    process.terminate()
    _, error = process.communicate(timeout=SAFETY)
    assert process.returncode == 75, error
    stopped = re.search(r"saved, phase '(\w+)' at step (\d+): the same command resumes", error)
    assert stopped, error
    process = start(*flags)
    out = ""
    while "resumed" not in out:
        out = process.stdout.readline()
    assert f"resumed phase {stopped[1]!r} at step {stopped[2]} of " in out
    process.kill()
    process.communicate()


def test_a_workdir_that_cannot_be_written_is_named():
    code, _, error = run(SMOKE, "--workdir=/proc/ofa_jax")
    assert code == 2
    assert error.startswith("error: workdir /proc/ofa_jax cannot be written: ")
    assert len(error.splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for two checkpoints of configs/smoke.py."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2000k", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_the_last_checkpoint_is_whole(small_disk):
    flags = (SMOKE, f"--workdir={small_disk / 'run'}", "--mode=train")
    code, _, error = run(*flags)
    assert code == 2
    assert len(error.splitlines()) == 1, error
    assert re.search(
        r"no space left for a checkpoint in .*/run/checkpoints/full: [\d.]+ MB are needed,"
        r" [\d.]+ MB free; those before it are whole",
        error,
    )
    remount = ["mount", "-o", "remount,size=99m", str(small_disk)]
    subprocess.run(remount, check=True)
    process = start(*flags)
    out = ""
    while "resumed" not in out and process.poll() is None:
        out = process.stdout.readline()
    process.kill()
    process.communicate()
    resumed = int(re.search(r"resumed phase 'full' at step (\d+)", out)[1])
    assert resumed in (10, 20, 30)


@pytest.mark.slow
def test_a_resnet_through_its_width_phases(tmp_path):
    """configs/digits_resnet.py, cut short: elastic width is trained, evaluated and extracted."""
    short = [f"--config.phases.{p}.epochs=1" for p in ("depth", "expand", "width1", "width2")]
    short.append("--config.train.compute=masks")  # compiles faster than branches
    config = "--config=configs/digits_resnet.py"
    workdir = f"--workdir={tmp_path / 'run'}"
    code, out, error = run(config, workdir, "--mode=train", *short)
    assert code == 0, error
    assert f"next: python main.py --mode=evaluate {workdir}" in out
    for flags in (("--mode=evaluate",), ("--mode=extract", "--arch=smallest")):
        code, _, error = run(workdir, *flags)
        assert code == 0, error
    assert "training step compiled 1 time: 32 px" in out
    rows = json.loads((tmp_path / "run/evaluation.json").read_text())["subnets"]
    accuracy = {row["name"]: row["top1"] for row in rows}
    assert len(rows) == 8
    assert accuracy["largest"] > 0.9
    assert accuracy["d1-e0.5-w0.5"] > 0.8
    subnet, variables = ofa_jax.load_subnet(tmp_path / "run/subnets/smallest")
    assert variables["params"]["classifier"]["kernel"].shape == (64, 10)  # half of 128
    assert not subnet.space.active_stem(subnet.arch).residual
