"""Exported StableHLO files in other releases of jax, each in an environment of its own.

    python -m benchmarks.jax_versions
    python -m benchmarks.jax_versions --versions 0.11.0 0.12.0.1 --python=python3.13

A random subnet's files are written by the jax that is installed here: of any batch and of a fixed
one, of normalised images and of pixels. An environment has jax and NumPy alone. It is an error if
a release that the files' cards promise does not load one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ofa_jax
from benchmarks import harness
from ofa_jax.deploy import graph as graph_lib
from ofa_jax.deploy import stablehlo
from ofa_jax.deploy.compare import difference
from ofa_jax.files import short
from ofa_jax.normalization import MEAN, STD, normalize_images

VERSIONS = ("0.7.2", "0.8.0", "0.8.1", "0.8.2", "0.8.3", "0.9.0", "0.9.2", "0.10.0", "0.10.2")
BATCH, RESOLUTION = 4, 16
# Given to the Python of an environment: a file, its images and where its logits go.
PROGRAM = """
import sys
import jax
import numpy as np
from jax import export
model, images, logits = sys.argv[1:]
network = export.deserialize(bytearray(open(model, "rb").read()))
np.save(logits, jax.jit(network.call)(np.load(images)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--versions", nargs="+", default=VERSIONS, help="releases of jax")
    parser.add_argument("--python", default=sys.executable, help="the Python of the environments")
    parser.add_argument("--json", default="", help="file for the figures")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        cases, logits = write(Path(scratch))
        for version in args.versions:
            python = environment(args.python, version, Path(scratch, version))
            for path, batch, images in cases:
                row: dict[str, Any] = {"jax": version, "file": path.stem}
                row |= load(python, path, images, logits)
                row["promised"] = not older(version, stablehlo.oldest_jax(batch))
                figure = row.get("error") or f"{row['difference']:.1e}"
                print(f"jax {version:10} {path.stem:16} {figure}", flush=True)
                rows.append(row)
    harness.finish(args.json, {"written_by": jax.__version__, "rows": rows})
    if broken := [row for row in rows if row["promised"] and "error" in row]:
        sys.exit(f"error: not loaded, though promised: {json.dumps(broken)}")


def write(directory: Path) -> tuple[list[tuple[Path, int | None, Path]], np.ndarray]:
    """The files, each with its batch and its images; and the logits of these."""
    space = ofa_jax.get_space("ofa_tiny_d123_e346_k357", num_classes=10)
    net, arch = ofa_jax.build_supernet(space), space.sample(jax.random.key(0))
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, RESOLUTION, RESOLUTION, 3), np.uint8)
    images = np.asarray(normalize_images(jnp.asarray(pixels)))
    variables = jax.jit(net.init)(jax.random.key(0), images, arch)
    graph = graph_lib.fold(*ofa_jax.extract(space, variables, arch))
    cases = []
    for kind, taken in (("float32", images), ("uint8", pixels)):
        np.save(directory / f"{kind}.npy", taken)
        own = graph if kind == "float32" else graph_lib.with_normalization(graph, MEAN, STD)
        for batch in (None, BATCH):
            path = directory / f"{kind}, batch {batch or 'any'}.stablehlo"
            stablehlo.write(own, RESOLUTION, path, batch=batch)
            cases.append((path, batch, directory / f"{kind}.npy"))
    return cases, np.asarray(graph_lib.run(graph, jnp.asarray(images)))


def environment(python: str, version: str, directory: Path) -> Path:
    """The Python of a new environment with one release of jax."""
    subprocess.run([python, "-m", "venv", directory], check=True)
    inside = directory / "bin/python"
    packages = [f"jax=={version}", "numpy", "flatbuffers"]
    subprocess.run([inside, "-m", "pip", "install", "--quiet", *packages], check=True)
    return inside


def load(python: Path, path: Path, images: Path, logits: np.ndarray) -> dict[str, Any]:
    """How far its logits are from ours, of the largest; or the last line of its error."""
    out = path.with_suffix(".npy")
    command = [str(python), "-c", PROGRAM, *map(str, (path, images, out))]
    whole = {**os.environ, "JAX_TRACEBACK_FILTERING": "off"}  # else the last line is about that
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=whole)
    if done.returncode:
        return {"error": short(done.stderr.strip().splitlines()[-1], 120)}
    return {"difference": difference(np.load(out), logits)}


def older(version: str, other: str) -> bool:
    """Whether a release came before another one."""
    return [int(part) for part in version.split(".")] < [int(part) for part in other.split(".")]


if __name__ == "__main__":
    main()
