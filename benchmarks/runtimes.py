"""Every exported file in every runtime that is installed: whether it runs, and how accurately.

    python -m benchmarks.runtimes
    python -m benchmarks.runtimes --time --space=ofa_mbv3_d234_e346_k357_w1.0 --resolution=224

Without --time, a random subnet's files go through the runtimes; what a runtime does not take is
listed with the error. With --time, LiteRT and ONNX Runtime are timed in turns on five archs at
batch 1, one and two threads. Needs the extra deploy; OpenVINO and ncnn (with pnnx) join where they
are installed: `pip install openvino ncnn pnnx`.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ofa_jax
from benchmarks import harness

harness.needs("onnx", "onnxruntime", "ai_edge_litert", "ai_edge_quantizer")
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import (
    int8,
    onnx_fp16,
    stablehlo,
    tflite,
    tflite_fp16,
    tflite_int8,
    to_onnx,
)
from ofa_jax.deploy.batches import Call, in_batches
from ofa_jax.deploy.compare import difference, snr
from ofa_jax.deploy.graph import Graph
from ofa_jax.files import short
from ofa_jax.normalization import MEAN, STD, normalize_images
from ofa_jax.space import Arch, SearchSpace

WRITERS = {
    "stablehlo": stablehlo, "onnx": to_onnx, "onnx-fp16": onnx_fp16, "onnx-int8": int8,
    "tflite": tflite, "tflite-fp16": tflite_fp16, "tflite-int8": tflite_int8,
}  # fmt: skip
IMAGES = 32
ARCHS = ("largest", "kernels", "random1", "random2", "smallest")


class Case(NamedTuple):
    """A file: its format, whether it takes uint8 pixels, and its batch where that is fixed."""

    form: str
    uint8: bool
    batch: int | None

    def __str__(self) -> str:
        return f"{self.form}{', uint8' * self.uint8}{', batch 1' * (self.batch is not None)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="ofa_tiny_d123_e346_k357")
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--formats", nargs="+", choices=WRITERS, help="default: all; with --time,"
                        " onnx and tflite")  # fmt: skip
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=ARCHS, help="with --time")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="calls in a row in each round")
    parser.add_argument("--json", default="", help="file for the figures")
    args = parser.parse_args()
    space = ofa_jax.get_space(args.space, num_classes=10)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, args.resolution, args.resolution, 3), np.uint8)
    images = np.asarray(normalize_images(jnp.asarray(pixels)))
    supernet = random_supernet(space)
    with tempfile.TemporaryDirectory() as scratch:
        if args.time:
            figures: Any = times(space, supernet, images, args, Path(scratch))
        else:
            figures = table(space, supernet, pixels, images, args.formats or WRITERS, Path(scratch))
    harness.finish(args.json, {"rows": figures})


def random_supernet(space: SearchSpace) -> Any:
    """Random variables whose scale keeps activations of similar size from layer to layer."""
    net, rng = ofa_jax.build_supernet(space), np.random.default_rng(0)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), image, space.largest())

    def random_leaf(path: Any, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        if "_matrix" in name:
            return np.eye(shape.shape[0], dtype=np.float32)
        if "kernel" in name:
            fan_in = np.prod(shape.shape[:-1])
            return rng.standard_normal(shape.shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
        return np.full(shape.shape, "scale" in name or "var" in name, np.float32)

    return jax.tree_util.tree_map_with_path(random_leaf, shapes)


def folded(space: SearchSpace, supernet: Any, arch: Arch) -> Graph:
    """The layers of one subnet."""
    return graph_lib.fold(*ofa_jax.extract(space, supernet, arch))


def write(case: Case, graph: Graph, resolution: int, path: Path, images: np.ndarray) -> None:
    """One file of a subnet; int8 ranges are those of the images that it is measured on."""
    options = {"batches": [images]} if case.form.endswith("int8") else {}
    WRITERS[case.form].write(graph, resolution, path, batch=case.batch, **options)


# -- files in runtimes -----------------------------------------------------------------------------


def table(
    space: SearchSpace, supernet: Any, pixels: np.ndarray, images: np.ndarray,
    formats: Iterable[str], scratch: Path,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each file and runtime, printed as they are made."""
    graph = folded(space, supernet, space.sample(jax.random.key(0)))
    wanted, resolution = np.asarray(graph_lib.run(graph, jnp.asarray(images))), pixels.shape[1]
    normalizing = graph_lib.with_normalization(graph, MEAN, STD)
    cases = [Case(form, uint8, batch)
             for form in formats for uint8 in (False, True) for batch in (None, 1)]  # fmt: skip
    rows = []
    print(f"{'file':30} {'runtime':20} {'largest difference':>18} {'dB':>6}")
    for i, case in enumerate(cases):
        path = scratch / f"{i}.{case.form.split('-')[0]}"
        taken = pixels if case.uint8 else images
        write(case, normalizing if case.uint8 else graph, resolution, path, taken)
        for runtime, load in RUNTIMES.items():
            if not (path.suffix in load.suffixes and found(load.package)):
                continue
            row: dict[str, Any] = {"file": str(case), "runtime": runtime}
            try:
                call = load.load(path, taken)
                logits = in_batches(call, 1)(taken) if case.batch else call(taken)
                row |= {"difference": difference(logits, wanted), "db": snr(logits, wanted)}
                text = f"{row['difference']:18.1e} {row['db']:6.1f}"
            except Exception as error:  # whatever a runtime raises is what the table is for
                row["error"] = short(error, 80)
                text = f"no: {row['error']}"
            print(f"{case!s:30} {runtime:20} {text}", flush=True)
            rows.append(row)
    return rows


def found(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def by_onnxruntime(path: Path, images: np.ndarray) -> Call:
    return to_onnx.load(path)


def by_onnx(path: Path, images: np.ndarray) -> Call:
    """The standard's own, slow evaluator."""
    from onnx.reference import ReferenceEvaluator

    network: Any = ReferenceEvaluator(str(path))
    return lambda x: np.asarray(network.run(None, {to_onnx.INPUT: to_onnx.as_input(x)})[0])


def by_opencv(path: Path, images: np.ndarray) -> Call:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))

    def call(x: np.ndarray) -> np.ndarray:
        network.setInput(to_onnx.as_input(x))
        return np.asarray(network.forward())

    return call


def by_openvino(path: Path, images: np.ndarray) -> Call:
    import openvino

    exactly = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16, where the processor has it
    model = openvino.Core().compile_model(str(path), "CPU", exactly)
    first = path.suffix == ".onnx"
    return lambda x: np.asarray(model(to_onnx.as_input(x) if first else x)[0])


def by_ncnn(path: Path, images: np.ndarray) -> Call:
    """Converted by pnnx, for which shapes are fixed; one image at a time."""
    import ncnn

    one = to_onnx.as_input(images[:1])
    shape = (
        f"inputshape=[{','.join(map(str, one.shape))}]{'u8' if one.dtype == np.uint8 else 'f32'}"
    )
    pnnx = Path(sys.executable).with_name("pnnx")
    command = [str(pnnx), path.name, shape, "fp16=0"]
    subprocess.run(command, cwd=path.parent, capture_output=True, check=True)
    network = ncnn.Net()
    network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    for kind, load in (("param", network.load_param), ("bin", network.load_model)):
        if load(str(path.with_suffix(f".ncnn.{kind}"))):
            raise ValueError("pnnx converts it to layers that ncnn does not have")

    def call(x: np.ndarray) -> np.ndarray:
        rows = []
        for image in to_onnx.as_input(x):
            extractor = network.create_extractor()
            extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image)))
            rows.append(np.array(extractor.extract("out0")[1]))
        return np.stack(rows)

    return call


def by_litert(path: Path, images: np.ndarray) -> Call:
    return tflite.load(path)


def by_jax(path: Path, images: np.ndarray) -> Call:
    return stablehlo.load(path)


class Runtime(NamedTuple):
    """What loads files of these suffixes, and the package that it needs."""

    package: str
    suffixes: tuple[str, ...]
    load: Callable[[Path, np.ndarray], Call]


RUNTIMES = {
    "jax": Runtime("jax", (".stablehlo",), by_jax),
    "ONNX Runtime": Runtime("onnxruntime", (".onnx",), by_onnxruntime),
    "onnx's reference": Runtime("onnx", (".onnx",), by_onnx),
    "OpenCV": Runtime("cv2", (".onnx",), by_opencv),
    "OpenVINO": Runtime("openvino", (".onnx", ".tflite"), by_openvino),
    "ncnn": Runtime("ncnn", (".onnx",), by_ncnn),
    "LiteRT": Runtime("ai_edge_litert", (".tflite",), by_litert),
}


# -- times -----------------------------------------------------------------------------------------


def arch_of(space: SearchSpace, name: str) -> Arch:
    """An end of the space, the largest kernels on the smallest blocks, or a random arch."""
    if name == "kernels":
        values = {"ks": space.kernels[-1], "e": space.expands[0], "d": space.depths[0]}
        return space.arch_from_dict(values)
    if name.startswith("random"):
        return space.sample(jax.random.key(int(name.removeprefix("random"))))
    return space.largest() if name == "largest" else space.smallest()


def times(
    space: SearchSpace, supernet: Any, images: np.ndarray, args: argparse.Namespace, scratch: Path
) -> list[dict[str, Any]]:
    """Median milliseconds of each arch, format and number of threads."""
    rows = []
    for name in args.archs:
        graph, calls = folded(space, supernet, arch_of(space, name)), {}
        for form in args.formats or ("onnx", "tflite"):
            path = scratch / form
            write(Case(form, False, None), graph, args.resolution, path, images[:8])
            for threads in args.threads:
                call = WRITERS[form].load(path, threads=threads)
                calls[form, threads] = lambda call=call: call(images[:1])
        taken = harness.in_turns(args.rounds, args.steps, calls, warm=3, verbose=False)
        for (form, threads), seconds in taken.items():
            ms = 1e3 * statistics.median(seconds)
            rows.append({"arch": name, "format": form, "threads": threads, "ms": ms,
                         "least_ms": 1e3 * min(seconds)})  # fmt: skip
            print(f"{name:10} {form:12} {threads} threads  median {ms:8.2f} ms, least"
                  f" {1e3 * min(seconds):8.2f}", flush=True)  # fmt: skip
    return rows


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
