"""Every reader of what somebody else may have written: how to read it, and what must then work."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from cards import CARD
from fuzz.damage import as_json, changed, changed_arrays, damaged, npz
from hypothesis import strategies as st
from interop.test_net_config import reference_config
from PIL import Image
from random_nets import random_variables
from search.test_latency import write as write_table

import ofa_jax
from configs import digits_ps, digits_resnet, imagenet_mbv3, smoke
from ofa_jax import checkpoint
from ofa_jax.errors import InputError
from ofa_jax.families import get_space, list_spaces, space_from_dict, space_to_dict
from ofa_jax.interop.__main__ import read_weights
from ofa_jax.interop.catalogue import published
from ofa_jax.interop.net_config import read_net_config
from ofa_jax.network import build_subnet
from ofa_jax.run import checkpoints, fail, flags, workdir
from ofa_jax.run.card import Export, Latency, foreign_file, read_card
from ofa_jax.run.card_writer import rendered, write_card
from ofa_jax.run.collect import read_measured
from ofa_jax.run.config import from_dict, to_dict
from ofa_jax.run.data.decode import decode
from ofa_jax.run.data.examples import Reader as ExampleReader
from ofa_jax.run.data.image_folder import image_folder
from ofa_jax.run.data.tfds_source import from_folder
from ofa_jax.run.evaluate import read_evaluation, table
from ofa_jax.run.extract import middle_winner, preprocessing, read_arch
from ofa_jax.run.finetune import PHASE, check_begun
from ofa_jax.run.metrics import MetricsLog
from ofa_jax.run.plan import plan
from ofa_jax.run.predict import find_images, read_image
from ofa_jax.run.report import write_report
from ofa_jax.search.cost import macs, params
from ofa_jax.search.latency import load_latency_table, parts
from ofa_jax.search.predictor import (
    MOBILENET_BINS,
    Recipe,
    feature_count,
    load_predictor,
    save_predictor,
    train_predictor,
)
from ofa_jax.supernet import other_resolutions, read_supernet_card
from ofa_jax.train.phases import learning_rate, phase_data

TINY, MBV3, RESNET = "ofa_tiny_d123_e346_k357", "ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50"
PROXYLESS = "ofa_proxyless_d234_e346_k357_w1.3"
KEYS = jax.random.split(jax.random.key(0), 3)
IMAGES = 1797


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader and what it is given.

    Attributes:
      name: of the test.
      read: directory -> what was read; may refuse by `ValueError`.
      use: does with it what comes next; must not refuse.
      file: the damaged file in that directory, which every refusal names; "" for no file.
      good: contents that it accepts.
      contents: strategy of damaged ones.
      prepare: puts the other files there.
      share: of all inputs, next to the other readers'; those that are slow get fewer.
      refuses: whether it may refuse at all.
      names: what every refusal names instead of the file, such as its directory.
    """

    name: str
    read: Callable[[Path], Any]
    use: Callable[[Any], Any]
    file: str = ""
    good: tuple[bytes, ...] = ()
    contents: Any = None
    prepare: Callable[[Path], Any] = lambda directory: None
    share: float = 1.0
    refuses: bool = True
    names: str = ""


def of_json(*values):
    """JSON files: three damaged ones in four are JSON of other values."""
    good = [as_json(value) for value in values]
    value = changed(values).map(as_json)
    return {"good": tuple(good), "contents": st.one_of(value, value, value, damaged(good))}


def lines_of(*rows):
    """Files of JSON lines: rows are changed, lines damaged, or both."""
    good = [as_json(row) for row in rows]
    one = of_json(*rows)["contents"] | st.sampled_from(good)
    several = st.lists(one, min_size=1, max_size=6).map(b"\n".join)
    whole = b"\n".join([*good, b""])
    return {"good": (whole,), "contents": several | damaged([whole])}


def of_bytes(*good):
    """Files that nobody reads as text."""
    return {"good": good, "contents": damaged(good)}


def text_of(content):
    return content.decode("utf-8", "replace")


# -- configs and spaces ----------------------------------------------------------------------------

CONFIGS = [
    json.loads(json.dumps(module.get_config().to_dict()))
    for module in (smoke, digits_ps, digits_resnet, imagenet_mbv3)
]


def use_config(config):
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    space = config.search_space(config.space.num_classes or 10)
    use_space(space)
    legs = plan(config, IMAGES)
    for leg in legs[:1] + legs[-1:]:
        data = phase_data(leg.phase, space, leg.first, IMAGES, config.data.batch_size, leg.falls)
        for step in (leg.first, leg.end - 1):
            assert np.isfinite(learning_rate(data, np.int32(step)))
        assert leg.units > 0
    preprocessing(config.data, max(config.data.resolutions))
    hash(config.data)


def use_space(space):
    assert space.size >= 1
    for arch in (space.smallest(), space.largest(), space.sample(KEYS[0])):
        assert macs(space, arch, 64) > 0
        assert params(space, arch) > 0
        assert space.arch_to_dict(space.arch_from_dict(space.arch_to_dict(arch)))
        build_subnet(space, arch)
    assert space_from_dict(json.loads(json.dumps(space_to_dict(space)))) == space


def read_dict(directory, content=None):
    return from_dict(parsed(directory))


def parsed(directory):
    """Python's values of the file, NaN and all; whatever is no JSON is a text."""
    try:
        return json.loads((directory / "given").read_bytes())
    except (ValueError, RecursionError):
        return text_of((directory / "given").read_bytes())


def stored(directory):
    config = workdir.stored_config(directory)
    workdir.check(directory, config)
    return config


def overridden(directory):
    """main.py's own way: flags to a config; what argparse would print is what users read."""
    argv = ["main.py", "--config=tests/small_run.py", "--workdir=none"]
    found = parsed(directory)
    for key, value in found.items() if isinstance(found, dict) else [("seed", found)]:
        argv.append(f"--config.{key}={value}")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            flags.FLAGS.unparse_flags()
            with mock.patch.object(sys, "argv", argv), warnings.catch_warnings():
                # ml_collections loads config files by an old importlib call.
                warnings.simplefilter("ignore", DeprecationWarning)
                flags.parse("", argv)
            return from_dict(flags.FLAGS.config.to_dict())
    except SystemExit as end:
        assert end.code == fail.WRONG, printed.getvalue()
        raise InputError(printed.getvalue().removesuffix("\n")) from end


OVERRIDES = [
    {"seed": 3, "data.batch_size": 32, "train.momentum": 0.5},
    {"data.resolutions": "(8, 16)", "space.name": TINY},
    {"phases.full.lr": 0.1, "phases.full.epochs": 2, "data.augment.flip": 0.5},
    {"space.dropout": 0.2, "search.constraints": "(1e6,)", "export.formats": "('onnx',)"},
]


def space_of_id(directory):
    found = parsed(directory)
    if isinstance(found, dict):
        return get_space(found.pop("name", TINY), **found)
    return get_space(found)


IDS = [
    {"name": TINY, "num_classes": 10, "depths": [1, 2], "kernels": [3], "dropout": 0.1},
    {"name": RESNET, "widths": [0.5, 1.0], "expands": [0.5], "stem": 32, "bn_eps": 1e-5},
    {"name": MBV3, "expands": [2, 3.5], "head": 100, "features": 0, "stem_stride": 1},
]
SPACES = [json.loads(json.dumps(space_to_dict(get_space(name)))) for name in list_spaces()]


def small_space():
    return get_space(TINY, num_classes=3, depths=(1,), kernels=(3, 5), expands=(2,))


@functools.cache
def saved():
    """A directory with a saved supernet and a subnet, made once."""
    place = Path(tempfile.mkdtemp(prefix="nets-"))
    space = small_space()
    _, variables = random_variables(space)
    about = {"space": space_to_dict(space), "step": 3, "seed": 0, "classes": ["a", "b", "c"]}
    checkpoint.save_network(place / "supernet", variables, about)
    arch = space.smallest()
    _, own = ofa_jax.extract(space, variables, arch)
    about = {"space": space_to_dict(space), "arch": space.arch_to_dict(arch)}
    (place / "subnet").mkdir()
    checkpoint.save_network(place / "subnet" / "orbax", own, about)
    for seal in place.rglob("sha256.json"):
        shutil.copy(seal, seal.with_name("seal"))
        seal.unlink()  # so that what is changed is read
    return place


def nets(directory):
    shutil.copytree(saved(), directory, dirs_exist_ok=True)


def description(name):
    (path,) = (saved() / name).glob("**/description/metadata")
    return json.loads(path.read_bytes())


def space_and_classes(directory):
    space = checkpoint.load_space(directory / "supernet")
    return space, checkpoint.describe(directory / "supernet").classes


def use_classes(found):
    space, classes = found
    use_space(space)
    assert all(isinstance(name, str) for name in classes)


SUPERNET_CARD = {
    "space": space_to_dict(small_space()), "classes": ["a", "b", "c"], "resolutions": [16, 24],
    "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "center_crop": 0.9},
    "source": {"run": "mine"}, "trained": {"dataset": "digits"}, "files": {"a/b": "0"},
}  # fmt: skip


def use_supernet_card(card):
    use_classes((space_from_dict(card.space), card.classes))
    assert set(card.normalization) <= {"mean", "std"}
    other_resolutions(card.resolutions, (16,))


# -- archs -----------------------------------------------------------------------------------------

ARCHS = [
    {"ks": [3, None, None, 5, 5, None, 7, 3, 3], "e": [3, None, None, 4, 6, None, 3, 3, 4],
     "d": [1, 2, 3], "resolution": 24},
    {"ks": 5, "e": 4, "d": [1, 2, 1]},
]  # fmt: skip


def tiny():
    return get_space(TINY, num_classes=10)


def arch_of_file(directory):
    return read_arch(tiny(), str(directory / "a.json"))


def arch_of_flag(directory):
    return read_arch(tiny(), text_of((directory / "given").read_bytes()))


def use_arch(found):
    arch, resolution, name = found
    space = tiny()
    assert macs(space, arch, resolution or 16) > 0
    assert space.arch_to_dict(arch)
    build_subnet(space, arch)
    assert name


def net_config(name):
    def read(directory):
        space = get_space(name)
        return space, read_net_config(directory / "net.config", space)

    return read


def use_space_and_arch(found):
    space, arch = found
    assert macs(space, arch, 128) > 0
    build_subnet(space, arch)


CATALOGUE = [
    {"id": "note10_lat-64ms_top1-80.2_finetune-75", "space": TINY, "resolution": 32, "ks": 5,
     "e": 4, "d": [1, 2, 1], "params": 3, "macs": 4},
    {"id": "flops-595M_top1-80.0_finetune-75", "space": RESNET, "resolution": 224, "e": 0.25,
     "d": [0, 1, 1, 1, 1], "w": 2},
]  # fmt: skip


def use_catalogue(found):
    for name, net in found.items():
        assert isinstance(name, str)
        assert 0 <= net.top1 <= 1
        assert macs(net.space, net.arch, net.resolution) > 0


MEASURED = [
    {"index": i, "arch": {"ks": 5, "e": 4, "d": [1, 2, 1]}, "resolution": 16, "top1": 0.5 + i / 9,
     "loss": 1.0}
    for i in range(4)
]  # fmt: skip


def measured(directory):
    return read_measured(directory / "measured.jsonl", tiny(), (16,))


def use_measured(found):
    for row in found.values():
        tiny().arch_from_dict(row["arch"])
        assert row["resolution"] == 16
    top1 = np.asarray([row["top1"] for row in found.values()], np.float64)
    assert ((top1 >= 0) & (top1 <= 1)).all()


def encoded(pixels, kind):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


# -- a subnet's and a run's own files --------------------------------------------------------------


def full_card():
    tuned = {"top1": 0.5, "loss": 1.0}
    both = {"held_out": tuned, "test": tuned}
    return dataclasses.replace(
        CARD,
        exports={"onnx": Export("model.onnx", 4, "float32 [batch, 3, 16, 16]", 1e-6),
                 "onnx-int8": Export("model.int8.onnx", 4, "float32", 1e-6, {"top1": 0.5}, 30.0)},
        latency=(Latency("JAX", 1, 2, 0.5, 0.7),), machine={"processor": "fast", "threads": 2},
        finetuned={"from": "mine", "epochs": 3.0, "lr": 0.1, "distill": 1.0, "before": both,
                   "after": both},
    )  # fmt: skip


@functools.cache
def saved_card():
    """A subnet's directory."""
    place = Path(tempfile.mkdtemp(prefix="card-"))
    (place / "orbax").mkdir()
    (place / "orbax/weights").write_text("weights")
    (place / "model.onnx").write_text("onnx")
    (place / "model.int8.onnx").write_text("int8")
    write_card(place, full_card())
    return place


def card_directory(directory):
    shutil.copytree(saved_card(), directory, dirs_exist_ok=True)


def use_card(card):
    json.dumps(dataclasses.asdict(card), allow_nan=False)
    pixels = np.zeros((40, 30, 3), np.uint8)
    with tempfile.TemporaryDirectory() as place:
        write_card(Path(place), dataclasses.replace(card, exports={}, files={}), [])
        assert rendered(read_card(Path(place))) == rendered(card) or card.exports
        (Path(place) / "a.png").write_bytes(encoded(pixels, "png"))
        made = read_image(Path(place) / "a.png", card)
    assert made.shape == (card.resolution, card.resolution, 3)
    steps = card.preprocessing
    mean, std = np.float32(steps.mean), np.float32(steps.std)
    assert np.isfinite((made / np.float32(255) - mean) / std).all()


ROW = {"name": "largest", "arch": ARCHS[0], "resolution": 16, "split": "test", "top1": 0.9,
       "loss": 0.5, "macs": 10**6, "params": 10**5}  # fmt: skip
EVALUATION = {"space": TINY, "mean_top1": 0.9, "subnets": [ROW, {**ROW, "name": "smallest"}]}
FOUND = {
    "space": TINY, "cost": "macs",
    "predictor": {"held_out_archs": 20, "kendall_tau": 0.9, "spearman": 0.9, "rmse": 0.1},
    "found": [{"name": f"macs-{i}M", "arch": ARCHS[0], "resolution": 16, "macs": 10**6 * i,
               "predicted": 0.8, "held_out": 0.8, "params": 10**5} for i in (1, 2, 3)],
    "random": [{"cost": 1e6, "held_out": 0.7}],
}  # fmt: skip
FRONT = {**FOUND, "hypervolume": 0.5, "front": [{"arch": ARCHS[0], "resolution": 16,
         "macs": 10**6, "predicted": 0.8}]}  # fmt: skip
METRICS = [
    {"step": 1, "phase": "full", "group": "train", "time": 1.0, "loss": 2.0, "accuracy": 0.1,
     "learning_rate": 0.1},
    {"step": 2, "phase": "full", "group": "held_out", "time": 2.0, "top1/largest_16": 0.5},
    {"step": 2, "phase": "full", "group": "phase", "time": 2.0, "seconds": 3.0,
     "images_per_second": 100.0, "waited_for_data": 0.1, "skipped_images": 0},
]  # fmt: skip


def evaluation(directory):
    return read_evaluation(directory / "evaluation.json")


def use_evaluation(rows):
    assert "largest" in table(rows) or rows is not None


def begun(directory):
    (directory / "checkpoints" / PHASE / "1").mkdir(parents=True)
    check_begun(directory, from_dict(CONFIGS[0]), CARD)


BEGUN = {"finetune": CONFIGS[0]["finetune"], "subnet": {}}


def metrics_log(directory):
    (directory / "tb").mkdir()
    with MetricsLog(directory, 2):
        pass
    return (directory / "metrics.jsonl").read_text()


def use_log(text):
    assert all(json.loads(line)["step"] <= 2 for line in text.splitlines())


def run_files(directory):
    (directory / "config.json").write_bytes(as_json(CONFIGS[0]))
    (directory / "metrics.jsonl").write_bytes(b"\n".join(map(as_json, METRICS)))
    (directory / "evaluation.json").write_bytes(as_json(EVALUATION))
    for name in ("search", "subnets/mine", "finetune/mine-finetuned"):
        (directory / name).mkdir(parents=True)
    (directory / "search/found.json").write_bytes(as_json(FOUND))
    (directory / "search/front.json").write_bytes(as_json(FRONT))
    (directory / "search/measured.jsonl").write_bytes(b"\n".join(map(as_json, MEASURED)))
    shutil.copy(saved_card() / "card.json", directory / "subnets/mine/card.json")


REPORTED = {
    "config.json": of_json(*CONFIGS),
    "metrics.jsonl": lines_of(*METRICS),
    "evaluation.json": of_json(EVALUATION),
    "search/found.json": of_json(FOUND),
    "search/front.json": of_json(FRONT),
    "search/measured.jsonl": lines_of(*MEASURED),
    "subnets/mine/card.json": of_json(json.loads((saved_card() / "card.json").read_bytes())),
    "finetune/mine-finetuned/metrics.jsonl": lines_of(*METRICS),
    "report.html": of_bytes(b"<!DOCTYPE html>\n<html></html>"),
}


def use_page(path):
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")


def sealed(directory):
    checkpoints.check_step(directory, "full", 3)


def step_directory(directory):
    (directory / "checkpoints/full/3/state").mkdir(parents=True)
    (directory / "checkpoints/full/3/state/array").write_bytes(b"array")


SEAL = {"state/array": hashlib.sha256(b"array").hexdigest()}


# -- tables, predictors, weights -------------------------------------------------------------------


@functools.cache
def latency_table():
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "t.json"
        about = {"factor": 1.1, "batch_size": 1, "machine": {"threads": 2}}
        write_table(path, small_space(), (8, 16), **about)
        return json.loads(path.read_bytes())


def reference_table():
    keys = [p.key for part in parts(small_space(), 16) for p in part.pieces.flat]
    return {key: {"count": 9, "mean": 0.5, "std": 0.1} for key in keys}


def latency_json(directory):
    return load_latency_table(directory / "t.json", small_space())


def latency_yaml(directory):
    return load_latency_table(directory, small_space())


def use_latency(found):
    space = small_space()
    assert found.resolutions
    for resolution in found.resolutions[:2]:
        for arch in (space.smallest(), space.largest()):
            assert 0 <= found(arch, resolution) < 1e9
            assert np.isfinite(found(arch, np.int32(resolution)))


@functools.cache
def predictors():
    """The arrays of a predictor of ours and of one in the reference's form."""
    space = small_space()
    archs = jax.vmap(space.sample)(jax.random.split(KEYS[0], 30))
    sizes = np.where(np.arange(30) % 2, 128, 144)
    small = Recipe(epochs=10, hidden=(5, 4))
    trained = train_predictor(space, archs, sizes, np.linspace(0.5, 0.9, 30), KEYS[1], small)
    with tempfile.TemporaryDirectory() as place:
        save_predictor(Path(place) / "p.npz", trained)
        with np.load(Path(place) / "p.npz") as file:
            ours = dict(file)
    rng, count = np.random.default_rng(0), feature_count(space, MOBILENET_BINS)
    theirs = {"0.0.weight": rng.normal(size=(5, count)), "0.0.bias": np.zeros(5),
              "1.weight": rng.normal(size=(1, 5)), "base_acc": np.full(1, 0.7)}  # fmt: skip
    return ours, theirs


def predictor(directory):
    return load_predictor(directory / "p.npz", small_space())


def use_predictor(found):
    space = small_space()
    for arch in (space.smallest(), space.largest()):
        value = float(found(arch, found.bins[0][0]))
        assert 0 <= value <= 1, value
        assert 0 <= float(jax.jit(found)(arch, found.bins[-1][1] - 1)) <= 1


def of_arrays(*seeds):
    """Files of arrays: two damaged ones in three hold other arrays."""
    good = tuple(npz(arrays) for arrays in seeds)
    arrays = changed_arrays(seeds)
    return {"good": good, "contents": st.one_of(arrays, arrays, damaged(good))}


@functools.cache
def weights():
    import torch

    space = small_space()
    _, variables = random_variables(space)
    tensors = ofa_jax.interop.to_once_for_all(variables, space)
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}


@st.composite
def state_dicts(draw):
    """Files of torch.save of which tensors were renamed, dropped, reshaped or refilled."""
    import torch

    tensors = dict(weights())
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(weights())) | st.just("classifier.linear.bias"))
        tensor = weights()[name]
        tensors.pop(name, None)
        if draw(st.booleans()):
            odd = (
                torch.zeros(tensor.shape, dtype=torch.float64), tensor.to(torch.bfloat16),
                tensor.to(torch.int64), tensor.to(torch.complex64), tensor[None], tensor * np.nan,
                torch.zeros(()), torch.zeros(0), torch.zeros(1).expand(2**40), tensor.to_sparse(),
                torch.zeros(tensor.shape, device="meta"), torch.zeros(1).expand(2**33, 4),
                torch.zeros(1).expand(2**62),
            )  # fmt: skip
            tensors[name] = draw(st.sampled_from(odd))
        elif draw(st.booleans()):
            tensors[draw(st.sampled_from((0, None, "\x1b", "x" * 1000, "module.a", "a")))] = tensor
        else:
            tensors[name] = draw(st.sampled_from((None, 1, "x", [1], {}, {"a": tensor})))
    whole = st.sampled_from((tensors, {"state_dict": tensors}, {"state_dict": 1}, [tensors], None))
    file = io.BytesIO()
    torch.save(draw(st.just(tensors) | whole), file)
    return file.getvalue()


@functools.cache
def weights_file():
    import torch

    file = io.BytesIO()
    torch.save(weights(), file)
    return file.getvalue()


def use_weights(found):
    _, _, variables = found
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


# -- images ----------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
PICTURES = [encoded(PIXELS, kind) for kind in ("png", "jpeg", "bmp", "webp", "gif")]


def wide(data, kind):
    """The same picture with a header that says millions of pixels."""
    if kind == "png":
        return data[:16] + (60_000).to_bytes(4) * 2 + data[24:]
    start = data.index(b"\xff\xc0")
    return data[: start + 5] + b"\xff\xf0\xff\xf0" + data[start + 9 :]


def image(directory):
    return decode((directory / "given").read_bytes())


def image_file(directory):
    return read_image(directory / "a.png", CARD)


def folder_image(directory):
    source = image_folder(directory).open("train")
    pixels, label = ExampleReader(source, 2)(0)
    assert label == 0
    return pixels


def two_classes(directory):
    for name in ("cat", "dog"):
        (directory / name).mkdir()
        (directory / name / "b.png").write_bytes(PICTURES[0])


def use_pixels(pixels):
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.size


def globbed(directory):
    return find_images(text_of((directory / "given").read_bytes()))


PATTERNS = [b"photos/*.jpg", b"photos/[", b"~/a.png", b"/nowhere/a?[b", b"gs://bucket/a.png"]


def no_root(text):
    """The root of all files is a folder of images like any other, of which there are too many."""
    return set(text) != {ord("/")}


DATASET_INFO = {
    "citation": "", "description": "made here", "fileFormat": "array_record", "name": "made",
    "splits": [{"filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": "train", "numBytes": "10", "shardLengths": ["2", "3"]}],
    "version": "1.0.0",
}  # fmt: skip
FEATURES_AT = "tensorflow_datasets.core.features."
FEATURES = {
    "pythonClassName": f"{FEATURES_AT}features_dict.FeaturesDict",
    "featuresDict": {"features": {
        "image": {"pythonClassName": f"{FEATURES_AT}image_feature.Image",
                  "image": {"dtype": "uint8", "encodingFormat": "jpeg",
                            "shape": {"dimensions": ["8", "8", "3"]}}},
        "label": {"pythonClassName": f"{FEATURES_AT}class_label_feature.ClassLabel",
                  "classLabel": {"numClasses": "2"}}}},
}  # fmt: skip


def tfds_files(directory):
    (directory / "dataset_info.json").write_bytes(as_json(DATASET_INFO))
    (directory / "features.json").write_bytes(as_json(FEATURES))
    (directory / "label.labels.txt").write_text("cat\ndog\n")


def tfds_dataset(directory):
    return from_folder(directory, from_dict(CONFIGS[0]).data)


def use_dataset(found):
    assert len(found.class_names) > 1
    assert all(isinstance(name, str) for name in found.class_names)
    assert all(found.splits)


# -- all of them -----------------------------------------------------------------------------------


def nothing(found):
    """Where reading is all."""


CARD_FILE = of_json(json.loads((saved_card() / "card.json").read_bytes()))
TFDS = {"dataset_info.json": of_json(DATASET_INFO), "features.json": of_json(FEATURES),
        "label.labels.txt": of_bytes(b"cat\ndog\n")}  # fmt: skip

READERS = [
    Reader("config from a dict", read_dict, use_config, **of_json(*CONFIGS), share=1.5),
    Reader("overrides of a config", overridden, use_config, **of_json(*OVERRIDES)),
    Reader("stored config", stored, use_config, "config.json", **of_json(*CONFIGS), share=1.5),
    Reader("space by id", space_of_id, use_space, **of_json(*IDS)),
    Reader("space description", lambda d: space_from_dict(parsed(d)), use_space,
           **of_json(*SPACES)),
    Reader("supernet description", space_and_classes, use_classes, "supernet/description/metadata",
           **of_json(description("supernet")), prepare=nets, share=0.2, names="supernet"),
    Reader("supernet card", read_supernet_card, use_supernet_card, "card.json",
           **of_json(SUPERNET_CARD)),
    Reader("subnet description", lambda d: checkpoint.load_subnet(d / "subnet"), nothing,
           "subnet/orbax/description/metadata", **of_json(description("subnet")), prepare=nets,
           share=0.1, names="subnet"),
    Reader("arch file", arch_of_file, use_arch, "a.json", **of_json(*ARCHS)),
    Reader("arch of a flag", arch_of_flag, use_arch, **of_json(*ARCHS)),
    *(Reader(f"net.config of {name}", net_config(name), use_space_and_arch, "net.config",
             **of_json(*(reference_config(name, i) for i in (0, 1))), share=0.7)
      for name in (MBV3, PROXYLESS, RESNET)),
    Reader("catalogue", lambda d: published(d / "c.json"), use_catalogue, "c.json",
           **of_json(CATALOGUE)),
    Reader("measured archs", measured, use_measured, "measured.jsonl", **lines_of(*MEASURED)),
    Reader("card", read_card, use_card, "card.json", **CARD_FILE, prepare=card_directory,
           share=1.5, names="/d"),
    Reader("foreign files by a card", foreign_file, str.encode, "card.json", **CARD_FILE,
           prepare=card_directory, share=0.3, refuses=False),
    Reader("evaluation", evaluation, use_evaluation, "evaluation.json", **of_json(EVALUATION)),
    Reader("what a search found", middle_winner, str.encode, "search/found.json",
           **of_json(FOUND)),
    Reader("begun fine-tuning", begun, nothing, "begun.json", **of_json(BEGUN), share=0.3),
    Reader("metrics of a run to go on", metrics_log, use_log, "metrics.jsonl",
           **lines_of(*METRICS), share=0.5),
    *(Reader(f"report of {file}", write_report, use_page, file, **given, prepare=run_files,
             share=0.4, refuses=False)
      for file, given in REPORTED.items()),
    Reader("seal of a checkpoint", sealed, nothing, "checkpoints/full/3/sha256.json",
           **of_json(SEAL), prepare=step_directory, names="checkpoints/full/3"),
    Reader("latency table", latency_json, use_latency, "t.json", **of_json(latency_table())),
    Reader("latency table of the reference", latency_yaml, use_latency, "16_lookup_table.yaml",
           **of_json(reference_table()), names="/d"),
    Reader("predictor", predictor, use_predictor, "p.npz", **of_arrays(*predictors()), share=1.5),
    Reader("state dict", lambda d: read_weights(d / "w.pth", small_space()), use_weights, "w.pth",
           good=(weights_file(),), contents=state_dicts() | damaged([weights_file()]), share=0.5),
    Reader("image", image, use_pixels, **of_bytes(*PICTURES), share=1.5),
    Reader("image to predict", image_file, use_pixels, "a.png", **of_bytes(*PICTURES), share=0.5),
    Reader("image of a folder", folder_image, use_pixels, "cat/a.png", **of_bytes(*PICTURES),
           prepare=two_classes, share=0.3),
    Reader("pattern of images", globbed, nothing, contents=damaged(PATTERNS).filter(no_root)),
    *(Reader(f"tfds {file}", tfds_dataset, use_dataset, file, **given, prepare=tfds_files,
             share=0.2, names="/d")
      for file, given in TFDS.items()),
]  # fmt: skip
