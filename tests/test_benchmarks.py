"""Benchmarks run, shortened, and give figures."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from benchmarks.scaling import reduced_bytes
from ofa_jax import mesh

REPOSITORY = Path(__file__).parents[1]


def test_input_pipeline(tmp_path):
    figures = tmp_path / "figures.json"
    command = [
        sys.executable, "benchmarks/input_pipeline.py", f"--json={figures}", "--seconds=1",
        "--rounds=1", "--batch_size=16", "--batches=300",
    ]  # fmt: skip
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    report = json.loads(figures.read_text())
    pytorch, _, threads, workers = report["images_per_second"].values()
    assert min(threads, workers) > pytorch  # by more than twice on idle cores
    (_, early), *_, (made, late) = report["megabytes_0_workers"]
    assert made == 300
    assert late < 1.1 * early
    assert "to float32" in process.stdout


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
