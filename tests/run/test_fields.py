"""The three roads from a trained supernet, as configs: what they take over, and what they train."""

import dataclasses
import json

import pytest
from main_runs import SMALL, run
from PIL import Image
from random_nets import identical, random_variables

import ofa_jax
from configs import grow, smoke, specialise, transfer
from ofa_jax.families import space_to_dict
from ofa_jax.files import write_json
from ofa_jax.interop import save_pretrained, to_once_for_all
from ofa_jax.network import build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.fields import space_fields
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.run.initial import starting_variables
from ofa_jax.run.plan import plan
from ofa_jax.supernet import Preprocessing, SupernetCard, save_supernet

IMAGES = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.875)
NAMES = tuple("0123456789")


@pytest.fixture
def small():
    """The space of configs/smoke.py, for ten classes."""
    return from_dict(smoke.get_config().to_dict()).search_space(10)


@pytest.fixture
def supernet(small, tmp_path):
    """A supernet's directory, without a run."""
    _, variables = random_variables(small)
    card = SupernetCard(
        space_to_dict(small), NAMES, IMAGES, (16, 20), trained={"dataset": "digits"}
    )
    save_supernet(tmp_path / "net", small, variables, card)
    return tmp_path / "net"


def config_of(road, text):
    return from_dict(road.get_config(str(text)).to_dict())


def test_a_supernets_card_gives_space_and_images(supernet, small):
    config = config_of(specialise, supernet)
    assert dataclasses.replace(config.search_space(10), dropout=small.dropout) == small
    assert (config.init, config.curriculum) == (str(supernet), ())
    data = config.data
    assert (data.name, data.resolutions, data.center_crop) == ("digits", (16, 20), 0.875)
    assert (data.mean, data.std) == (IMAGES.mean, IMAGES.std)


def test_a_run_gives_everything_but_its_curriculum(supernet, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    supernet.rename(workdir / "supernet")
    of_run = smoke.get_config().to_dict()
    write_json(workdir / "config.json", of_run)
    config, theirs = config_of(specialise, workdir), from_dict(of_run)
    assert config == dataclasses.replace(theirs, init=str(workdir), curriculum=(), phases={})
    moved = config_of(transfer, f"{workdir},36")
    assert moved.space == theirs.space
    assert moved.data == dataclasses.replace(
        theirs.data, name="digits", held_out=moved.data.held_out, augment=moved.data.augment
    )
    assert moved.train == dataclasses.replace(theirs.train, schedule="passes")
    assert moved.search == theirs.search


def test_a_hub_directory_gives_space_and_images(small, tmp_path):
    _, variables = random_variables(small)
    save_pretrained(
        tmp_path / "hub", small, variables, classes=NAMES, resolutions=(20,), center_crop=0.9,
        normalization={"mean": IMAGES.mean, "std": IMAGES.std},
    )  # fmt: skip
    config = config_of(specialise, tmp_path / "hub")
    assert config.search_space(10).stages == small.stages
    assert (config.data.resolutions, config.data.center_crop) == ((20,), 0.9)
    assert config.data.std == IMAGES.std


def test_a_pytorch_file_tells_its_space(tmp_path):
    torch = pytest.importorskip("torch")
    space = ofa_jax.get_space("ofa_mbv3_d234_e346_k357_w1.2", num_classes=7)
    _, variables = random_variables(space)
    tensors = {name: torch.tensor(a) for name, a in to_once_for_all(variables, space).items()}
    torch.save(tensors, tmp_path / "net.pth")
    config = config_of(specialise, tmp_path / "net.pth")
    assert config.search_space(7).stages == space.stages
    assert (config.data.resolutions, config.data.center_crop) == ((224,), 0.875)
    del tensors["classifier.linear.weight"]
    torch.save(tensors, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none\.pth is of none of the spaces ofa_mbv3"):
        specialise.get_config(str(tmp_path / "none.pth"))


def test_transfer_trains_the_largest_net_for_a_quarter_of_the_cost(supernet):
    config = config_of(transfer, f"{supernet},36")
    full, elastic = plan(config, 6400)
    assert full.phase.only_largest(config.search_space(10))
    assert (full.phase.distill, elastic.phase.draw) == (0.0, "sandwich")
    assert full.units / (full.units + elastic.units) == pytest.approx(0.25, rel=0.02)
    assert full.units + elastic.units == pytest.approx(
        36 * 6400 // config.data.batch_size, rel=0.01
    )
    assert not (full.phase.sort_width or elastic.phase.sort_width)


def test_grow_adds_a_block_to_every_stage(supernet, small):
    config = config_of(grow, supernet)
    space = config.search_space(10)
    assert space.depths == (1, 2, 3)
    assert len(space.blocks) == len(small.blocks) + 2
    assert config.ordered_phases()[0][1].only_largest(space)
    variables = starting_variables(config, build_supernet(space), NAMES)
    assert "stage1_block3" in variables["params"]
    trained = ofa_jax.load_supernet(supernet)[2]["params"]
    assert all(identical(variables["params"][name], trained[name]) for name in trained)


def test_there_must_be_a_supernet(tmp_path):
    for road in (specialise, transfer, grow):
        with pytest.raises(ValueError, match="nowhere'?: expected a supernet's directory"):
            road.get_config(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["ofa_resnet50", "ofa_proxyless_d234_e346_k357_w1.3"])
def test_a_space_comes_back_from_its_fields(name):
    space = ofa_jax.get_space(name, num_classes=5, dropout=0.3, depths=(1, 2))
    assert ofa_jax.get_space(**space_fields(space), num_classes=5) == space
    assert space_fields(space) == {"name": name, "dropout": 0.3, "depths": (1, 2)}


def write_folder(directory):
    """Three of the digits as images of classes with names of their own."""
    digits = load_dataset(DataConfig())
    for i in range(len(digits.train)):
        example = digits.train[i]
        if example["label"] < 3:
            place = directory / f"digit {example['label']}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example["image"][..., 0]).save(place / f"{i}.png")


@pytest.mark.slow
def test_the_roads_lead_to_their_end(tmp_path):
    """From a run of configs/smoke.py: no training, other classes, a larger space."""
    first = tmp_path / "first"
    code, _, error = run(SMALL, "--mode=train", f"--workdir={first}")
    assert code == 0, error
    before = {path: path.read_bytes() for path in (first / "supernet").rglob("*") if path.is_file()}
    write_folder(tmp_path / "images")
    others = (f"--config.data.name={tmp_path / 'images'}", "--config.data.held_out=40")
    for road, text, more in (
        ("specialise", first, ()), ("transfer", f"{first},8", others), ("grow", f"{first},2", ()),
    ):  # fmt: skip
        workdir = tmp_path / road
        code, out, error = run(
            f"--config=configs/{road}.py:{text}", f"--workdir={workdir}",
            "--config.export.benchmark=2", *more,
        )  # fmt: skip
        assert code == 0, error
        classifier = "a new classifier" if road == "transfer" else "its classifier"
        assert f"starting from {first}, with {classifier}" in out
        (tuned,) = (workdir / "subnets").glob("*-finetuned")
        card = json.loads((tuned / "card.json").read_text())
        assert {row["runtime"] for row in card["latency"]} == {"JAX", "StableHLO"}
        assert card["accuracy"]["test"]["top1"] > (0.4 if more else 0.15)  # guessing: 1/3, 0.1
    supernets = {
        road: json.loads((tmp_path / road / "supernet/card.json").read_text())
        for road in ("first", "specialise", "transfer", "grow")
    }
    trained = {road: card["trained"] for road, card in supernets.items()}
    assert trained["specialise"] == trained["first"]
    assert trained["transfer"]["curriculum"] == ["full", "elastic"]
    assert supernets["transfer"]["classes"] == ["digit 0", "digit 1", "digit 2"]
    assert supernets["grow"]["space"]["depths"] == [1, 2, 3]
    loaded = [ofa_jax.load_supernet(tmp_path / r / "supernet")[2] for r in ("first", "specialise")]
    assert identical(*loaded)
    assert before == {
        path: path.read_bytes() for path in (first / "supernet").rglob("*") if path.is_file()
    }
    # A mode by itself, in a workdir of its own.
    code, out, error = run(
        f"--config=configs/specialise.py:{first / 'supernet'}", "--mode=extract",
        f"--workdir={tmp_path / 'alone'}", "--arch=smallest",
    )  # fmt: skip
    assert code == 0, error
    assert (tmp_path / "alone/subnets/smallest/card.json").is_file()
