"""Exported MobileNetV3 subnets in ONNX Runtime, beside the reference's exported by PyTorch.

    python -m benchmarks.export --subnets=5

Random archs of one space at batch 1, in turns, all with the same weights; ours in JAX, too. Needs
the extras deploy and reference (`pip install -e ".[deploy,bench]"`).
"""

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ofa_jax
from benchmarks import harness

harness.needs("onnx", "onnxruntime", "onnxscript", "ai_edge_litert", "torch", "ofa")
import torch

from benchmarks.reference import reference_subnet
from ofa_jax import interop
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import stablehlo, tflite, to_onnx
from ofa_jax.space import Arch, SearchSpace

OURS, THEIRS = "ONNX, ofa_jax", "ONNX, PyTorch's exporter"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_d234_e346_k357_w1.0")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--subnets", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="calls in a row in each round")
    parser.add_argument("--json", default="", help="file for the figures")
    args = parser.parse_args()
    space = ofa_jax.get_space(args.space)
    net, rows = ofa_jax.build_supernet(space), []
    images = np.random.default_rng(0).normal(size=(1, args.resolution, args.resolution, 3))
    images = images.astype(np.float32)
    variables = jax.jit(net.init)(jax.random.key(0), images, space.largest())
    for key in jax.random.split(jax.random.key(0), args.subnets):
        arch = space.sample(key)
        # Calibrated: else values shrink from layer to layer, below what processors are fast at.
        stats = ofa_jax.calibrate(net, variables, arch, [jnp.asarray(images)])
        rows += subnet_rows(space, {**variables, "batch_stats": stats}, arch, images, args)
    print(f"\n{args.space} at {args.resolution} px, batch 1, median of {args.subnets} subnets")
    ratios = {}
    for threads in args.threads:
        own = [row for row in rows if row["threads"] == threads]
        ratios[threads] = statistics.median(row["ms"][OURS] / row["ms"][THEIRS] for row in own)
        for name in own[0]["ms"]:
            middle = statistics.median(row["ms"][name] for row in own)
            print(f"{threads} threads  {name:26} {middle:8.2f} ms")
        print(f"{threads} threads  ours to theirs: {ratios[threads]:.2f}")
    harness.finish(args.json, {"rows": rows, "ours_to_theirs": ratios})


def subnet_rows(
    space: SearchSpace, supernet: Any, arch: Arch, images: np.ndarray, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Median milliseconds of one subnet's runtimes, a row for each number of threads."""
    subnet, variables = ofa_jax.extract(space, supernet, arch)
    graph = graph_lib.fold(subnet, variables)
    torch_net = reference_subnet(space, arch, interop.to_once_for_all(supernet, space))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = Path(scratch, "ours.onnx"), Path(scratch, "theirs.onnx")
        lite, hlo = Path(scratch, "ours.tflite"), Path(scratch, "ours.stablehlo")
        to_onnx.write(graph, args.resolution, ours)
        tflite.write(graph, args.resolution, lite)
        stablehlo.write(graph, args.resolution, hlo)
        export_by_torch(torch_net, args.resolution, theirs)
        apply, exported = jax.jit(subnet.apply), stablehlo.load(hlo)
        for threads in args.threads:
            calls: dict[str, Callable[[], Any]] = {
                OURS: session_call(ours, threads, images),
                THEIRS: session_call(theirs, threads, images),
                "TFLite, ofa_jax": bound(tflite.load(lite, threads), images),
                "PyTorch, eager": torch_call(torch_net, threads, images),
            }
            if threads == max(args.threads):  # as many as XLA takes
                calls["JAX subnet"] = lambda: apply(variables, images)
                calls["StableHLO, ofa_jax"] = bound(exported, images)
            check_equal(calls)
            times = harness.in_turns(args.rounds, args.steps, calls, warm=5, verbose=False)
            ms = {name: 1e3 * statistics.median(taken) for name, taken in times.items()}
            rows.append({"arch": space.arch_to_dict(arch), "threads": threads, "ms": ms})
            print(f"{threads} threads: " + ", ".join(f"{n} {t:.2f} ms" for n, t in ms.items()))
    return rows


def check_equal(calls: dict[str, Callable[[], Any]]) -> None:
    """All contenders give the same logits."""
    logits = {name: np.asarray(call()).reshape(1, -1) for name, call in calls.items()}
    for name, values in logits.items():
        difference = np.abs(values - logits[OURS]).max() / np.abs(logits[OURS]).max()
        assert difference < 1e-4, f"{name} differs from {OURS} by {difference:.1e}"


def session_call(path: Path, threads: int, images: np.ndarray) -> Callable[[], Any]:
    """ONNX Runtime on one file, whatever its inputs are called."""
    session = to_onnx.session(path, threads)
    (taken,) = session.get_inputs()
    fed = {taken.name: to_onnx.as_input(images)}
    return lambda: session.run(None, fed)


def bound(function: Callable[[np.ndarray], Any], images: np.ndarray) -> Callable[[], Any]:
    return lambda: function(images)


def torch_call(net: Any, threads: int, images: np.ndarray) -> Callable[[], Any]:
    """PyTorch as shipped: NCHW, no compilation."""
    taken = torch.from_numpy(to_onnx.as_input(images))

    def call() -> Any:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return net(taken)

    return call


def export_by_torch(net: Any, resolution: int, path: Path) -> None:
    """PyTorch's own exporter, the batch of any size as in ours."""
    images = torch.zeros(2, 3, resolution, resolution)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (images,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False, verbose=False,
        )  # fmt: skip


if __name__ == "__main__":
    main()
