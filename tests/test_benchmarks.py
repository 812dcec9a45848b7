"""Benchmarks run, shortened, and give figures."""

import json
import subprocess
import sys
from pathlib import Path

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
