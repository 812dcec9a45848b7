"""Files of less precision, and files of one batch size."""

import dataclasses
import re
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from random_nets import random_variables

import ofa_jax
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import stablehlo
from ofa_jax.deploy.batches import in_batches, of_size
from ofa_jax.deploy.compare import accuracy, compare, snr
from ofa_jax.run.export import FIRST, write_int8

onnx = pytest.importorskip("onnx", reason="needs the extra deploy")
pytest.importorskip("ai_edge_quantizer", reason="needs the extra deploy")
from benchmarks import precision, runtimes  # noqa: E402
from ofa_jax.deploy import (  # noqa: E402
    int8,
    onnx_fp16,
    tflite,
    tflite_fp16,
    tflite_int8,
    to_onnx,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def net():
    """The layers of a random subnet, random pixels and the logits of these."""
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)
    _, variables = random_variables(space)
    subnet, own = ofa_jax.extract(space, variables, space.sample(jax.random.key(0)))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)
    images = np.asarray((pixels / 255 - MEAN) / STD, np.float32)
    graph = graph_lib.fold(subnet, own)
    return graph, pixels, images, np.asarray(jax.jit(subnet.apply)(own, images))


@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize(
    ("module", "least", "share"),
    [(onnx_fp16, 55, 0.6), (tflite_fp16, 55, 0.6), (int8, 25, 0.45), (tflite_int8, 25, 0.45)],
    ids=["onnx-fp16", "tflite-fp16", "onnx-int8", "tflite-int8"],
)
def test_smaller_files(net, module, least, share, batch, uint8, tmp_path, capsys):
    graph, pixels, images, wanted = net
    plain = to_onnx if module in (onnx_fp16, int8) else tflite
    if uint8:
        graph, images = graph_lib.with_normalization(graph, MEAN, STD), pixels
    options = {"batches": [images]} if module in (int8, tflite_int8) else {}
    path, large = tmp_path / "small", tmp_path / "large"
    module.write(graph, 16, path, batch=batch, **options)
    plain.write(graph, 16, large)
    assert capsys.readouterr() == ("", "")  # of the bars and words of what writes them
    assert path.stat().st_size < share * large.stat().st_size
    call = module.load(path)
    assert snr(in_batches(call, batch or 1)(images), wanted) > least
    assert snr(call(images[:4]), wanted[:4]) > least


def test_ranges_are_of_all_images_however_many_at_once(net, tmp_path, monkeypatch):
    """An image that is brighter than the others is not clipped either."""
    graph, _, images, _ = net
    images = np.concatenate([images[:15], 3 * images[15:16]])
    found = []
    for count in (16, 4):
        monkeypatch.setattr(tflite_int8, "AT_ONCE", count)
        tflite_int8.write(graph, 16, tmp_path / "net", [images])
        found.append(tflite_int8.load(tmp_path / "net")(images))
    assert snr(found[1], found[0]) > 40  # but for rounding, nothing
    wanted = np.asarray(graph_lib.run(graph, images))
    assert snr(found[0][15:], wanted[15:]) > 25


@pytest.mark.parametrize(("uint8", "batch"), [(False, None), (True, None), (False, 4)])
@pytest.mark.parametrize("module", [int8, tflite_int8], ids=["onnx", "tflite"])
def test_a_loud_filter_of_the_stem_needs_the_first_layers_in_float(
    module, uint8, batch, net, tmp_path
):
    """As trained nets have them: of small variance, so of a large factor, and of little weight."""
    _, pixels, images, _ = net
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)
    layers = list(runtimes.folded(space, runtimes.random_supernet(space), space.largest()))
    loud = np.where(np.arange(layers[0].operation.weight.shape[-1]) == 3, 100, 1)

    def scaled(number, factor, **bias):
        operation = layers[number].operation
        weight = np.float32(operation.weight * factor)
        operation = dataclasses.replace(operation, weight=weight, **bias)
        layers[number] = layers[number]._replace(operation=operation)

    scaled(0, loud, bias=np.float32(layers[0].operation.bias * loud))
    scaled(1, 1 / loud)
    scaled(4, 1 / loud[:, None])
    graph, first = tuple(layers), FIRST
    if uint8:
        graph, images, first = graph_lib.with_normalization(graph, MEAN, STD), pixels, FIRST + 1
    wanted, found = np.asarray(graph_lib.run(graph, images)), []
    for in_float in (0, first):
        module.write(graph, 16, tmp_path / "net", [images], batch=batch, in_float=in_float)
        call = in_batches(module.load(tmp_path / "net"), batch or len(images))
        found.append(snr(call(images), wanted))
    assert found[0] < 10 and found[1] > 20


@pytest.mark.parametrize(
    ("noises", "writes", "kept"),
    [((0.01, 0.001), [0], 0), ((1, 0.01), [0, FIRST], FIRST), ((1, 2), [0, FIRST, 0], 0)],
)
def test_first_layers_stay_in_float_where_that_helps(noises, writes, kept, net):
    graph, _, images, wanted = net
    noise = dict(zip((0, FIRST), noises, strict=True))
    done: list[int] = []

    def write(*args, batch, in_float):
        done.append(in_float)

    def load(path):
        return lambda images: wanted * (1 + noise[done[-1]])

    module = types.SimpleNamespace(write=write, load=load)
    seen = types.SimpleNamespace(calibrating=lambda: [images], sample=images)
    card = types.SimpleNamespace(resolution=16)
    assert write_int8(module, graph, card, Path("net"), seen, wanted, None) == kept
    assert done == writes


def test_logits_that_are_mostly_noise_are_refused():
    wanted = np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)
    noisy = wanted + np.random.default_rng(1).normal(size=wanted.shape).astype(np.float32) / 2

    def call(images):
        return noisy[images]

    assert snr(noisy, wanted) == pytest.approx(6, abs=1)
    with pytest.raises(ValueError, match=r"the tflite-int8 file's logits have [456]\.\d dB over"):
        compare(call, np.arange(16), wanted, "tflite-int8", "int8")
    with pytest.raises(ValueError, match="expected at least 40; it is not kept"):
        compare(lambda i: wanted[i] + 0.01 * noisy[i], np.arange(16), wanted, "x", "float16")
    assert compare(lambda i: wanted[i] + 1e-5, np.arange(16), wanted, "x", "int8") < 1e-4
    assert snr(wanted, wanted) > 300
    labels = noisy.argmax(-1)
    labels[:4] = (labels[:4] + 1) % 10
    batches = [(np.arange(7), labels[:7]), (np.arange(7, 16), labels[7:])]
    assert accuracy(call, batches) == {"top1": 0.75}


def test_figures_of_a_file(capsys):
    own = np.eye(4, dtype=np.float32)
    logits = own + np.float32([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]])
    labels = np.asarray([0, 1, 0, 3])
    found = precision.row("mine", "onnx-int8", logits, own, labels, 1500)
    assert (found["images"], found["bytes"]) == (4, 1500)
    assert (found["top1"], found["differs"]) == (0.5, 0.25)
    assert found["db"] == pytest.approx(0)  # four ones, and a two
    assert "onnx-int8    0.002 MB" in capsys.readouterr().out


def test_any_number_of_images_in_batches_of_one_size():
    seen = []

    def double(images):
        seen.append(len(images))
        return 2 * images

    np.testing.assert_array_equal(in_batches(double, 4)(np.arange(10)), 2 * np.arange(10))
    assert seen == [4, 4, 4]
    parts = [part.tolist() for part in of_size([np.arange(6), np.arange(2)], 4)]
    assert parts == [[0, 1, 2, 3], [4, 5, 0, 1], [0, 1, 0, 1]]
    assert [len(part) for part in of_size([np.arange(6)], None)] == [6]


def shape_of(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_a_fixed_batch_in_every_format(net, tmp_path):
    graph, _, images, wanted = net
    for module in (to_onnx, tflite, stablehlo):
        module.write(graph, 16, tmp_path / "net", batch=2)
        found = module.load(tmp_path / "net")(images[:2])
        assert np.abs(found - wanted[:2]).max() < 1e-5 * np.abs(wanted).max(), module
        if module is to_onnx:
            model = onnx.load(tmp_path / "net")
            assert shape_of(model.graph.input[0]) == [2, 3, 16, 16]
            assert shape_of(model.graph.output[0]) == [2, 10]
        if module is tflite:
            (details,) = tflite.Interpreter(str(tmp_path / "net")).get_input_details()
            for shape in (details["shape"], details["shape_signature"]):
                assert shape.tolist() == [2, 16, 16, 3]
        if module is stablehlo:
            data = bytearray((tmp_path / "net").read_bytes())
            assert jax.export.deserialize(data).in_avals[0].shape == (2, 16, 16, 3)


def test_phone_delegates_take_all_of_a_file_of_fixed_batch(net, tmp_path, caplog):
    """ONNX Runtime's own checker: one piece for NNAPI and both kinds of Core ML."""
    from onnxruntime.tools.mobile_helpers import usability_checker

    to_onnx.write(net[0], 16, tmp_path / "net.onnx", batch=1)
    kinds = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert not kinds & {"HardSigmoid", "HardSwish"}
    with caplog.at_level("INFO"):
        usability_checker.analyze_model(tmp_path / "net.onnx", skip_optimize=True)
    partitions = re.findall(r"(\d+) partitions with a total of (\d+)/(\d+) nodes", caplog.text)
    assert len(partitions) == 3
    for pieces, taken, nodes in partitions:
        assert (pieces, taken) == ("1", nodes), caplog.text
