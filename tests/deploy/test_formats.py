"""Extracted, folded, StableHLO, ONNX and TFLite: one network, on real images."""

import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import MBV3, PROXYLESS, RESNET, TINY, slow
from random_nets import QUICKLY, random_variables

import ofa_jax
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import stablehlo
from ofa_jax.normalization import normalize_images
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.pipeline import evaluation_batches
from ofa_jax.run.groups.data import DataConfig

onnx = pytest.importorskip("onnx", reason="needs the extra deploy")
tflite = pytest.importorskip("ofa_jax.deploy.tflite", reason="needs the extra deploy")
from ofa_jax.deploy import to_onnx  # noqa: E402

PUBLISHED = (MBV3, PROXYLESS, RESNET)
TFDS = Path(__file__).parents[3] / "shared/data/tfds"
MEAN, STD = DataConfig().mean, DataConfig().std
WRITERS = {"stablehlo": stablehlo, "onnx": to_onnx, "tflite": tflite}


def real_pixels(resolution, count=7):
    """Real images: photographs, or digits for small resolutions."""
    data = DataConfig()
    if resolution > 32:
        if not TFDS.exists():
            pytest.skip("the real images are not here")
        data = DataConfig(name="imagenette224", data_dir=str(TFDS), test_split="validation")
    batches = evaluation_batches(load_dataset(data), "test", data, resolution, count)
    return next(batches)["image"]


def normalized(pixels):
    return np.asarray(normalize_images(jnp.asarray(pixels), MEAN, STD))


def subnets(name, count, classes=10):
    """Random subnets in which every weight affects the logits: (subnet, variables)."""
    space = ofa_jax.get_space(name, num_classes=classes)
    _, variables = random_variables(space)
    for key in jax.random.split(jax.random.key(8), count):
        yield ofa_jax.extract(space, variables, space.sample(key))


def logits_of(subnet, variables, images):
    apply = jax.jit(subnet.apply, compiler_options=QUICKLY)
    return np.asarray(apply(variables, images))


def difference(logits, wanted):
    return np.abs(np.asarray(logits) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "count", "resolution"),
    [
        (TINY, 2, 16),
        *(pytest.param(name, 1, 224, marks=pytest.mark.slow) for name in PUBLISHED),
    ],
)
def test_every_format_is_the_subnet(name, count, resolution, tmp_path):
    pixels = real_pixels(resolution)
    images = normalized(pixels)
    for subnet, variables in subnets(name, count):
        wanted = logits_of(subnet, variables, images)
        graph = graph_lib.fold(subnet, variables)
        for form, module in WRITERS.items():
            path = tmp_path / f"net.{form}"
            module.write(graph, resolution, path)
            call = module.load(path)
            assert difference(call(images), wanted) < 1e-4, form
            assert difference(call(images[:1]), wanted[:1]) < 1e-4, form


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", slow(MBV3, RESNET))
def test_odd_sizes_and_pixels(name, form, tmp_path):
    """97 px: every halving meets an odd row; the file normalises uint8 pixels itself."""
    ((subnet, variables),) = subnets(name, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 97, 97, 3), np.uint8)
    wanted = logits_of(subnet, variables, normalized(pixels))
    graph = graph_lib.with_normalization(graph_lib.fold(subnet, variables), MEAN, STD)
    WRITERS[form].write(graph, 97, tmp_path / "net")
    assert difference(WRITERS[form].load(tmp_path / "net")(pixels), wanted) < 1e-4


def test_a_folded_subnet_is_the_subnet(space_to_run):
    space = space_to_run
    _, variables = random_variables(space)
    subnet, own = ofa_jax.extract(space, variables, space.sample(jax.random.key(1)))
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    graph = graph_lib.fold(subnet, own)
    wanted = logits_of(subnet, own, images)
    run = jax.jit(lambda images: graph_lib.run(graph, images))
    assert difference(run(images), wanted) < 1e-5
    # No batch norm is left: a layer for every convolution, activations inside.
    kinds = {type(operation).__name__ for operation, _ in graph}
    assert kinds <= {"Conv", "SqueezeExcite", "Add", "MaxPool", "Halve", "Mean", "Dense"}


def test_onnx_holds_folded_standard_operators(tmp_path):
    ((subnet, variables),) = subnets(MBV3, 1)
    to_onnx.write(graph_lib.fold(subnet, variables), 64, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} == {
        "Conv", "Relu", "HardSwish", "Clip", "GlobalAveragePool", "Mul", "Add", "Flatten", "Gemm",
    }  # fmt: skip
    (images,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == [
        "batch", 3, 64, 64,
    ]  # fmt: skip


def test_stablehlo_runs_without_this_package(tmp_path):
    ((subnet, variables),) = subnets(TINY, 1)
    images = normalized(real_pixels(16))
    stablehlo.write(graph_lib.fold(subnet, variables), 16, tmp_path / "net")
    np.save(tmp_path / "images.npy", images)
    script = """
import sys
sys.modules["ofa_jax"] = None  # importing it fails
import jax, numpy as np
from jax import export
network = export.deserialize(bytearray(open("net", "rb").read()))
assert network.platforms == ("cpu", "cuda", "tpu")
np.save("logits.npy", jax.jit(network.call)(np.load("images.npy")))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    wanted = logits_of(subnet, variables, images)
    assert difference(np.load(tmp_path / "logits.npy"), wanted) < 1e-4


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_depthwise_convolutions_in_tflite(size, stride, tmp_path):
    """A 7x7 kernel is the sum of three, none of more taps than the runtime has a kernel for."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(size, size, 1, 3)), rng.normal(size=3)
    layer = graph_lib.Conv(np.float32(weight), np.float32(bias), stride, "h_swish", depthwise=True)
    graph = (graph_lib.Layer(layer, (0,)),)
    for pixels in (5, 14, 17):
        images = np.float32(rng.normal(size=(2, pixels, pixels, 3)))
        tflite.write(graph, pixels, tmp_path / "net.tflite")
        found = tflite.load(tmp_path / "net.tflite")(images)
        signatures = tflite.Interpreter(str(tmp_path / "net.tflite")).get_signature_list()
        assert signatures == {"serving_default": {"inputs": ["images"], "outputs": ["logits"]}}
        assert difference(found, np.asarray(graph_lib.run(graph, jnp.asarray(images)))) < 1e-5
    parts = tflite.PARTS.get(size, ((range(size), range(size)),))
    assert all(len(rows) * len(columns) <= 25 for rows, columns in parts)
    taps = [tap for part in parts for tap in itertools.product(*part)]
    assert sorted(taps) == list(itertools.product(range(size), repeat=2))
