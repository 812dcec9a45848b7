"""The export command: files of a subnet for other runtimes, each loaded back and compared."""

import dataclasses
import functools
import importlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import checkpoint
from ofa_jax.deploy import compare as compare_lib
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import stablehlo
from ofa_jax.deploy.batches import Call, in_batches
from ofa_jax.deploy.compare import compare
from ofa_jax.deploy.graph import Graph
from ofa_jax.errors import InputError
from ofa_jax.extras import check_installed
from ofa_jax.files import written
from ofa_jax.normalization import normalize_images
from ofa_jax.run import processes
from ofa_jax.run.card import Card, Export, check_images, find_subnet, read_card
from ofa_jax.run.card_writer import write_card
from ofa_jax.run.config import Config
from ofa_jax.run.data import pipeline
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.evaluate import batch_size
from ofa_jax.run.groups.subnets import FORMATS
from ofa_jax.run.metrics import track
from ofa_jax.storage import TEMPORARY, local_copy


class Format(NamedTuple):
    """A kind of file: its name, the module that writes and loads it, and what that needs."""

    file: str
    module: str
    packages: tuple[str, ...] = ()
    precision: str = "float32"


ONNX = ("onnx", "onnxruntime")
TFLITE = ("ai_edge_litert", "flatbuffers")
KINDS = {
    "stablehlo": Format("model.stablehlo", "stablehlo", ("flatbuffers",)),
    "onnx": Format("model.onnx", "to_onnx", ONNX),
    "onnx-fp16": Format("model.fp16.onnx", "onnx_fp16", ONNX, "float16"),
    "onnx-int8": Format("model.int8.onnx", "int8", ONNX, "int8"),
    "tflite": Format("model.tflite", "tflite", TFLITE),
    "tflite-fp16": Format(
        "model.fp16.tflite", "tflite_fp16", (*TFLITE, "ai_edge_quantizer"), "float16"
    ),
    "tflite-int8": Format(
        "model.int8.tflite", "tflite_int8", (*TFLITE, "ai_edge_quantizer"), "int8"
    ),
}
assert set(KINDS) == set(FORMATS)

FIRST = 5  # layers: of MobileNetV3 the stem, the first block and the first layer of the second
CLEAR_SNR = 20.0  # decibels, below which an int8 file is tried with the first layers in float32


def export(
    config: Config,
    workdir: Path,
    text: str,
    formats: Sequence[str],
    *,
    uint8: bool = False,
    overwrite: bool = False,
    batch: int | None = None,
) -> None:
    """Writes files of a subnet into its directory and describes them in its card.

    Batch norms are folded into convolutions and the batch may have any size. A file is loaded
    back and compared with the subnet on test images, one by one, in sevens and all at once; those
    of less precision than float32 are measured on the whole test split, too. Ranges of int8 values
    are those of training images.

    Args:
      config: the run's configuration, for its images.
      workdir: the run's directory.
      text: the subnet's name, or its directory.
      formats: of `FORMATS`.
      uint8: whether files take pixels and normalise them, instead of normalised images.
      overwrite: whether existing files may be replaced.
      batch: images a call where that is to be fixed, as compilers and phone delegates want it.

    Raises:
      ValueError: no such subnet, an altered one, an unknown format, a package that is missing, an
        existing file, or one whose logits differ; nothing of it is left then.
    """
    processes.from_first(
        functools.partial(_export, config, workdir, text, formats, uint8, overwrite, batch)
    )


def _export(
    config: Config, workdir: Path, text: str, formats: Sequence[str], uint8: bool, overwrite: bool,
    batch: int | None,
) -> None:  # fmt: skip
    directory = find_subnet(workdir, text)
    card = read_card(directory)
    check_formats(formats)
    for name in formats:
        path = directory / KINDS[name].file
        if not path.exists() or _mark(path).exists():
            continue
        if name not in card.exports:
            raise InputError(f"{path} exists, and ofa_jax did not write it: move it away")
        if not overwrite:
            raise InputError(f"{path} exists: --overwrite replaces it")
    dataset = load_dataset(config.data)
    check_images(directory, card, config.data, dataset.class_names)
    subnet, variables = checkpoint.load_subnet(directory)
    graph = graph_lib.fold(subnet, variables)
    if uint8:
        steps = card.preprocessing
        graph = graph_lib.with_normalization(graph, steps.mean, steps.std)
    images = Images(config, dataset, card, uint8)
    wanted = np.asarray(jax.jit(subnet.apply)(variables, images.normalized))
    for name in formats:
        if name in card.exports:
            # Killed between the new file and its checksum, the subnet must stay whole.
            _mark(directory / KINDS[name].file).touch()
            card = forget(card, name)
            write_card(directory, card, [])
        made = _write(name, graph, card, directory, images, wanted, batch)
        card = dataclasses.replace(card, exports={**card.exports, name: made})
        write_card(directory, card, [made.file])
        _mark(directory / made.file).unlink()
        card = read_card(directory)
        print(_summary(directory, name, made, card))


def _mark(path: Path) -> Path:
    """A file that is beside another one while no card knows it: a killed export leaves both."""
    return path.with_name(f"{TEMPORARY}{path.name}-begun")


def forget(card: Card, name: str) -> Card:
    """The card without one of its exported files."""
    exports = {key: made for key, made in card.exports.items() if key != name}
    files = {path: sha for path, sha in card.files.items() if path != card.exports[name].file}
    return dataclasses.replace(card, exports=exports, files=files)


def export_once(config: Config, workdir: Path, text: str) -> None:
    """Writes those of the config's formats that a subnet does not have yet."""
    exports = processes.from_first(lambda: read_card(find_subnet(workdir, text)).exports)
    missing = [name for name in config.export.formats if name not in exports]
    for name in config.export.formats:
        if name in exports:
            print(f"{name} exists: {find_subnet(workdir, text) / exports[name].file}")
    if missing:
        export(config, workdir, text, missing, overwrite=True)


def check_formats(names: Sequence[str], field: str = "--format") -> None:
    """Raises `ValueError` unless all formats are known and what they need is installed."""
    for name in names:
        if name not in KINDS:
            raise InputError(f"{field}={name!r}: expected {', '.join(FORMATS)}")
        check_installed(f"{field}={name}", "deploy", *KINDS[name].packages)


def load_export(directory: Path, name: str, card: Card, **options: Any) -> Call:
    """An exported file's network as a function of images `[batch, height, width, 3]`.

    Where the file's batch is fixed, it takes that many.
    """
    with local_copy(directory / card.exports[name].file) as file:
        return _module(name).load(file, **options)


def _module(name: str) -> Any:
    return importlib.import_module(f"ofa_jax.deploy.{KINDS[name].module}")


class Images:
    """The dataset's images as an exported file takes them."""

    def __init__(self, config: Config, dataset: Dataset, card: Card, uint8: bool):
        self._config, self._dataset, self._resolution = config, dataset, card.resolution
        self._uint8 = uint8
        first = next(iter(self._tested()))
        pixels = jnp.asarray(first["image"][first["weight"] > 0])
        self.normalized = normalize_images(pixels, config.data.mean, config.data.std)
        self.sample = self._as_input(np.asarray(pixels))

    def tested(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Batches of the test split with their labels."""
        size = batch_size(self._config, self._dataset)
        total = -(-len(self._dataset.split("test")) // size)
        for batch in track(self._tested(), total, "evaluating the file"):
            seen = batch["weight"] > 0
            yield self._as_input(batch["image"][seen]), batch["label"][seen]

    def calibrating(self) -> list[np.ndarray]:
        """Training images in batches, for the ranges of int8 values."""
        settings = self._config.evaluate
        batches = pipeline.calibration_batches(
            self._dataset, self._config.data, self._resolution,
            settings.calibration_images, settings.calibration_batch_size,
        )  # fmt: skip
        return [self._as_input(images) for images in batches]

    def _tested(self) -> Iterable[Any]:
        size = batch_size(self._config, self._dataset)
        data = self._config.data
        return pipeline.evaluation_batches(self._dataset, "test", data, self._resolution, size)

    def _as_input(self, pixels: np.ndarray) -> np.ndarray:
        if self._uint8:
            return pixels
        data = self._config.data
        return np.asarray(normalize_images(jnp.asarray(pixels), data.mean, data.std))


def _write(
    name: str, graph: Graph, card: Card, directory: Path, images: Images, wanted: np.ndarray,
    batch: int | None,
) -> Export:  # fmt: skip
    """One file, written beside its place, compared, and only then moved there."""
    kind, module = KINDS[name], _module(name)
    path, accuracy, snr, in_float = directory / kind.file, dict[str, float](), None, 0
    with written(path) as temporary:
        if kind.precision == "int8":
            in_float = write_int8(module, graph, card, temporary, images, wanted, batch)
        else:
            module.write(graph, card.resolution, temporary, batch=batch)
        if name.startswith("onnx"):
            _describe(temporary, card)
        call = _load(module, temporary, batch)
        difference = compare(call, images.sample, wanted, name, kind.precision)
        if kind.precision != "float32":
            snr = compare_lib.snr(call(images.sample), wanted)
            accuracy = compare_lib.accuracy(call, images.tested())
        size = temporary.stat().st_size
        _mark(path).touch()
    uint8 = graph_lib.normalizes(graph)
    input_type, runtime = _input(card.resolution, name, uint8, batch), _runtime(name, uint8, batch)
    return Export(path.name, size, input_type, difference, accuracy, snr, batch, runtime, in_float)


def _load(module: Any, path: Path, batch: int | None) -> Call:
    """The file's network, for any number of images."""
    call: Call = module.load(path)
    return in_batches(call, batch) if batch else call


def write_int8(
    module: Any, graph: Graph, card: Card, path: Path, images: Images, wanted: np.ndarray,
    batch: int | None,
) -> int:  # fmt: skip
    """Writes an int8 file and returns how many of its first layers are in float32.

    They are where the logits' noise is high without. A filter of the stem that varies little on
    training images has a large factor once its batch norm is folded, and the few values that it
    gives, far beyond all others, make int8 coarse up to the second block.
    """
    first, batches, tried = FIRST + graph_lib.normalizes(graph), images.calibrating(), {}

    def write(in_float: int) -> None:
        module.write(graph, card.resolution, path, batches, batch=batch, in_float=in_float)

    for in_float in (0, first):
        write(in_float)
        snr = compare_lib.snr(_load(module, path, batch)(images.sample), wanted)
        if snr >= CLEAR_SNR:
            return in_float
        tried[snr] = in_float
    if tried[max(tried)] == 0:
        write(0)
    return tried[max(tried)]


def _runtime(name: str, uint8: bool, batch: int | None) -> str:
    """Which runtimes or releases load a file written now; "" where all of them do."""
    if name == "stablehlo":
        return f"jax {stablehlo.oldest_jax(batch)} or newer, written by jax {jax.__version__}"
    return "not ncnn, which has no uint8 input" if name.startswith("onnx") and uint8 else ""


def _describe(path: Path, card: Card) -> None:
    """Writes into an ONNX file what a program needs that has nothing else: classes, images."""
    summary = f"Subnet {card.name} of {card.space}, {card.resolution} px, by ofa_jax."
    about = {
        "classes": card.classes, "preprocessing": dataclasses.asdict(card.preprocessing),
        "arch": card.arch, "source": card.source,
    }  # fmt: skip
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    importlib.import_module("ofa_jax.deploy.to_onnx").describe(path, summary, texts)


def _input(resolution: int, name: str, uint8: bool, batch: int | None) -> str:
    square = f"{resolution}, {resolution}"
    channels_first = name.startswith("onnx") and not uint8
    shape = f"3, {square}" if channels_first else f"{square}, 3"
    return f"{'uint8' if uint8 else 'float32'} [{batch or 'batch'}, {shape}]"


def _summary(directory: Path, name: str, made: Export, card: Card) -> str:
    text = f"{name}: {directory / made.file}, {made.bytes / 1e6:.2f} MB"
    if made.accuracy:
        before = card.accuracy["test"]["top1"]
        accuracy = f"top-1 {made.accuracy['top1']:.2%} on test, float32 {before:.2%}"
        first = f", the first {made.in_float} layers in float32" * (made.in_float > 0)
        return f"{text}, {accuracy}, logits {made.snr_db:.0f} dB over their noise{first}"
    return f"{text}, within {made.difference:.0e} of the subnet's logits"
