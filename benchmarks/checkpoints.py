"""What a checkpoint costs: seconds that a step waits, and those from SIGTERM to a finished save.

    python -m benchmarks.checkpoints --workdir=FOLDER
    python -m benchmarks.checkpoints --workdir=gs://BUCKET/checkpoints

The state is that of a run with the paper's optimiser: parameters, momentum and batch statistics,
on the attached devices. It is saved as a run saves it. "waits" is how long the training thread
stands still, "sealed" how long until the files and their checksums are written; a run that SIGTERM
stops needs as long. FOLDER must be new, and is removed at the end.
"""

import argparse
import statistics
import time
from typing import Any

import jax

from benchmarks import harness
from ofa_jax import mesh, storage
from ofa_jax.network import build_supernet
from ofa_jax.run import checkpoints
from ofa_jax.run.config import from_dict
from ofa_jax.run.initial import random_variables
from ofa_jax.run.step import init_state

PHASE = "only"


def state_of(space: str, classes: int) -> Any:
    """The state of a run before its first step."""
    config = from_dict(
        {"space": {"name": space, "num_classes": classes}, "curriculum": (PHASE,),
         "phases": {PHASE: {"distill": 0.0}}}
    )  # fmt: skip
    net = build_supernet(config.search_space(classes))
    return init_state(config, mesh.data_mesh(), random_variables(net, config), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # noqa: E501  # fmt: skip
    parser.add_argument("--space", default="ofa_mbv3_d234_e346_k357_w1.0")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    workdir = storage.as_path(args.workdir)
    if workdir.exists():
        parser.error(f"--workdir={args.workdir} exists: give a new folder")
    workdir.mkdir(parents=True)
    state = jax.block_until_ready(state_of(args.space, args.classes))
    seconds: dict[str, list[float]] = {"waits": [], "sealed": [], "restored": []}
    with checkpoints.open_phase(workdir, PHASE, keep=2) as manager:
        for step in range(1, args.saves + 2):
            began = time.perf_counter()
            checkpoints.save_step(manager, step, state, {"phase": PHASE})
            waited = time.perf_counter() - began
            checkpoints.finish_saves(manager)
            sealed = time.perf_counter() - began
            began = time.perf_counter()
            checkpoints.restore_step(workdir, PHASE, step, state)
            restored = time.perf_counter() - began
            if step > 1:  # the first one sets up what others have
                for name, value in zip(seconds, (waited, sealed, restored), strict=True):
                    seconds[name].append(value)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    print(f"{args.space}, {size:.0f} MB, {args.saves} saves in {args.workdir}")
    for name, values in seconds.items():
        least, most = min(values), max(values)
        print(f"  {name} {statistics.median(values):.2f} s ({least:.2f} to {most:.2f})")
    storage.remove(workdir)
    harness.finish(args.json, {"megabytes": size, "seconds": seconds})


if __name__ == "__main__":
    main()
