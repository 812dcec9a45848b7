"""Time from the command to the first training step, with an empty compilation cache and a full one.

    pip install -e ".[bench]"
    python -m benchmarks.startup --against-once-for-all

`main.py` is started on the embedded digits with a published space, and stopped when the first step
is in its log: imports, reading, drawing weights, compiling and the step are all in. The reference
imports, builds its net and takes one step, in a process of its own too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness

REPOSITORY = Path(__file__).parents[1]
REFERENCE = """
import torch
from benchmarks.once_for_all import DEVICE, Reference
from ofa_jax.families import get_space
net = Reference(get_space({space!r}, num_classes=10), "as shipped")
labels = torch.zeros({batch_size}, dtype=torch.long, device=DEVICE)
net.step(net.images({batch_size}, {resolution}), labels, {subnets})
"""


def main_command(args: argparse.Namespace, workdir: str) -> list[str]:
    return [
        sys.executable, "main.py", "--config=configs/digits_ps.py", f"--workdir={workdir}",
        "--mode=train", "--config.curriculum=('expand2',)", "--config.distill.source=largest",
        "--config.phases.expand2.sort_width=False",
        f"--config.phases.expand2.subnets={args.subnets}", f"--config.space.name={args.space}",
        f"--config.data.batch_size={args.batch_size}",
        f"--config.data.resolutions=({args.resolution},)",
        f"--config.train.compute={args.compute}",
    ]  # fmt: skip


def seconds_to_first_step(args: argparse.Namespace, cache: str) -> float:
    with tempfile.TemporaryDirectory() as workdir:
        log = Path(workdir, "run", "metrics.jsonl")
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        began = time.perf_counter()
        command = main_command(args, str(log.parent))
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
        while not log.exists() or "\n" not in log.read_text(encoding="utf-8"):
            if process.poll() is not None:
                raise SystemExit("main.py ended before its first step")
            time.sleep(0.05)
        taken = time.perf_counter() - began
        process.kill()
        process.wait()
    return taken


def reference_seconds(args: argparse.Namespace) -> float:
    began = time.perf_counter()
    code = REFERENCE.format(**vars(args))
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_d234_e346_k357_w1.0")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--subnets", type=int, default=4, help="a step")
    parser.add_argument("--compute", default="auto", help="or masks, branches")
    parser.add_argument("--against-once-for-all", action="store_true")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    if args.against_once_for_all:
        harness.needs("torch", "ofa")
    with tempfile.TemporaryDirectory() as cache:
        found = {state: seconds_to_first_step(args, cache) for state in ("cold", "warm")}
    if args.against_once_for_all:
        found["once-for-all"] = reference_seconds(args)
    print("\nseconds to the first step")
    for name, seconds in found.items():
        print(f"{name:16}{seconds:8.1f}")
    harness.finish(args.json, {"arguments": vars(args), "seconds": found})


if __name__ == "__main__":
    main()
