"""A supernet's start on another data set: from a trained supernet, against from nothing.

    python -m benchmarks.transfer --data-dir=FOLDER --data=IMAGES --workdir=runs/transfer \
        --json=transfer.json

For each seed a supernet is trained on CIFAR-10 at 16 px (configs/cifar10_16.py; FOLDER holds it as
tfds prepares it). IMAGES, a folder of images by class or "digits", are then learned from it
(configs/transfer.py) and from random weights (the recipe "halves", or others of `--starts`), each
at a quarter, a half and all of `--passes` subnet passes over them. Each run is `main.py
--mode=train`, then the grid and random subnets, calibrated and measured. `--config.…` flags go to
every run on IMAGES. The JSON file keeps the rows: a run that it has is not run again.

Written on 2026-11-27, before any run. We expect, on means over seeds:
  1. at a quarter of the passes, "transfer" is ahead in every column; against it would count to be
     behind in any;
  2. the distance is smaller at all passes than at a quarter, in every column;
  3. at all passes "transfer" is not behind by more than 0.5 points in any column.
A difference below two standard errors of the difference of the means is called none.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from benchmarks.recipes import KEY, Run, commit, finish, measure_run, plot, table, train
from ofa_jax.files import read_object
from ofa_jax.run import compiled
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.plan import plan
from ofa_jax.run.workdir import read_config

# What configs/transfer.py has for new images, where configs/cifar10_16.py has CIFAR-10's own.
AS_TRANSFER = (
    "--config.data.train_split=train", "--config.data.held_out=180",
    "--config.data.augment.flip=0.0",
)  # fmt: skip


def supernet(args: argparse.Namespace, seed: int) -> Path:
    """The workdir of a supernet trained on CIFAR-10, now or before."""
    workdir = Path(args.workdir) / f"cifar10-{args.source_passes:g}-seed{seed}"
    folder = Path(args.data_dir).resolve()
    train(
        f"configs/cifar10_16.py:halves,{args.source_passes:g}", workdir,
        [f"--config.seed={seed}", f"--config.data.data_dir={folder}"],
    )  # fmt: skip
    return workdir


def run_one(
    args: argparse.Namespace, more: Sequence[str], start: str, share: float, seed: int
) -> Run:
    """Trains and measures one run on the new images."""
    passes = share * args.passes
    workdir = Path(args.workdir) / f"{start}-{passes:g}-seed{seed}"
    print(f"\n== {workdir.name}", flush=True)
    overrides = [f"--config.seed={seed}", f"--config.data.name={args.data}", *more]
    if start == "transfer":
        config = f"configs/transfer.py:{supernet(args, seed).resolve()},{passes:g}"
    else:
        config, overrides = f"configs/cifar10_16.py:{start},{passes:g}", [*AS_TRANSFER, *overrides]
    seconds = train(config, workdir, overrides)
    config_of_run = read_config(workdir / "config.json")
    images = len(load_dataset(config_of_run.data).train)
    units = sum(leg.units for leg in plan(config_of_run, images))
    return {
        "recipe": start, "budget": passes, "rate": None, "seed": seed, "split": args.split,
        "seconds": seconds, "commit": commit(),
        "passes": units / (images // config_of_run.data.batch_size),
        **measure_run(config_of_run, workdir, args.split, args.archs),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # noqa: E501  # fmt: skip
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--workdir", default="runs/transfer")
    parser.add_argument("--passes", type=float, default=72)
    parser.add_argument("--shares", default="0.25,0.5,1")
    parser.add_argument("--starts", default="halves,transfer",
                        help="transfer, and recipes that begin with random weights")  # fmt: skip
    parser.add_argument("--source-passes", type=float, default=72)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--split", default="test", choices=("test", "held_out"))
    parser.add_argument("--archs", type=int, default=100)
    parser.add_argument("--json", default="")
    parser.add_argument("--picture", default="")
    args, more = parser.parse_known_args()
    if any(not flag.startswith("--config.") for flag in more):
        parser.error(f"unknown: {' '.join(more)}")
    compiled.keep()
    rows: list[Run] = []
    if args.json and Path(args.json).is_file():
        rows = read_object(Path(args.json), "rows")["rows"]
    known = {tuple(row[key] for key in KEY) for row in rows}
    seeds, shares = map(int, args.seeds.split(",")), map(float, args.shares.split(","))
    for seed, share, start in itertools.product(seeds, shares, args.starts.split(",")):
        if (start, share * args.passes, None, seed, args.split) not in known:
            rows.append(run_one(args, more, start, share, seed))
            print("\n" + table(rows), flush=True)
            finish(args.json, rows)  # a stop loses one run
    print("\n" + table(rows))
    if args.picture:
        plot(args.picture, rows)


if __name__ == "__main__":
    main()
