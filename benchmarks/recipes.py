"""Recipes for training a supernet, compared at equal subnet passes over several seeds.

    python -m benchmarks.recipes --data-dir=FOLDER --workdir=runs/recipes --json=recipes.json \
        --picture=recipes.png

A subnet pass is a forward and backward of one subnet on one image; the forward of a teacher that
does not train counts as a third. FOLDER holds CIFAR-10 as tfds prepares it; the config is
configs/cifar10_16.py. Each run is `main.py --mode=train`, then the grid and 100 random subnets, the
same for all, calibrated and measured. The JSON file keeps the rows: a run that it has is not run
again, on another day or another machine. On two cores a run of 72 passes takes about 40 minutes.

Rates are tuned with the same number of trials for every recipe, on held-out images and a seed of
its own, before the runs that count:

    python -m benchmarks.recipes --seeds=100 --rates=0.05,0.1,0.2 --split=held_out ...

Written before the runs, on 2026-11-26. We expect, on means over seeds:
  1. "oneshot" is ahead of "ps" on the smallest net by 1 point or more; against it would count if
     "ps" were ahead in any column by more than 0.5;
  2. "delayed" is within 0.5 of "oneshot" on the smallest and ahead on the largest at 72 passes;
     against it would count to be 1 point behind on any column;
  3. with four times the budget the distance between "ps" and the others halves, in every column;
  4. "single_path" is ahead of all others in every column by 2 points or more at 18 passes, because
     its steps are the most numerous, and by less at 72; against it would count to be behind in any
     column. Known before: one trial of each with seed 100 on held-out images, 18 passes, rate 0.1
     (smallest, mean, largest): "ps" 43.2, 46.6, 50.8; "oneshot" 49.8, 51.0, 54.7, and at the rate
     0.2 49.7, 51.2, 53.4; "single_path" 54.1, 54.9, 57.1.
Written on 2026-11-27, before the runs of "halves" on test and after one trial of it on held-out
images (seed 100, 18 passes, rate 0.1: 58.1, 60.6, 66.1; and of a recipe with single subnets, taught
by the largest, between its halves: 53.9, 56.6, 60.5):
  5. "halves" is ahead of "delayed" in every column at 18 passes, by 2 points or more; against it
     would count to be less than 0.5 ahead on the smallest, or behind in any column.
Since 2026-11-28 "halves" has two students a step without labels, as trials on other training images
had it (docs/results.md); of that nothing was expected in writing before its runs on test.
Written on 2026-11-28, before any run at 4.5 passes, a quarter of 18 (72 takes too long here):
  6. at 4.5 passes the order on the smallest is that at 18: "halves", "delayed", "oneshot", "ps",
     each ahead of the next by 1 point or more; against it would count any other order;
  7. "ps" is further behind "halves" than at 18 in every column, by 1 point or more;
  8. "halves" is ahead of "oneshot" by less than at 18 on the largest, which then has been trained
     alone for 2.25 epochs; against it would count a larger distance;
and while the first of the archs alone, the largest, was being trained at 18:
  9. the middle and the largest of "halves" are within 1 point of themselves alone.
Found on 2026-11-28: until then training images shrank by means of areas, and test images by
Pillow's bilinear filter, as both do now. Here, at half the size, that cost 5 to 9 points of top-1.
All runs named above were of that kind, as were those of an arch alone and seven at 4.5 passes.
Expectations 6 to 9 stand, and before the runs that resize alike we add:
 10. the order of recipes stays, and every figure rises by 4 points or more.
Written later that day, before the other recipes at 18 passes with one filter, archs alone at 4.5,
and runs on few images (2,140 grey ones of benchmarks/grey_folder.py at 124 passes):
 11. at 18 the order is that at 4.5, with "halves" ahead of "delayed" on the smallest by 2 points or
     more, and of "oneshot" by 4 or more;
 12. at 4.5 "halves" is behind the smallest alone by less than at 18 (2.5 points), and ahead of the
     largest alone;
 13. on few images "oneshot" is within 1 point of "halves" in every column.
A difference below two standard errors of the difference of the means is called none.
"""

import argparse
import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from configs import cifar10_16
from ofa_jax import checkpoint, mesh
from ofa_jax.files import parse_json, read_object, read_text
from ofa_jax.network import best_compute
from ofa_jax.run import compiled
from ofa_jax.run.config import Config
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.evaluate import (
    calibration_images,
    evaluation_batches,
    normalized,
)
from ofa_jax.run.metrics import clock
from ofa_jax.run.plan import plan
from ofa_jax.run.workdir import read_config
from ofa_jax.search.cost import macs
from ofa_jax.search.evolution import Found
from ofa_jax.search.front import hypervolume, undominated
from ofa_jax.space import Arch
from ofa_jax.subnets.calibrate import GROUP, calibrate_each, group
from ofa_jax.subnets.evaluate import grid, measure

REPOSITORY = Path(__file__).parents[1]
COLUMNS = ("smallest", "middle", "mean", "largest", "area")
KEY = ("recipe", "budget", "rate", "seed", "split")
UNLABELLED = ", without labels"  # of a recipe's name in the rows
MIDDLE = {"ks": 5, "e": 4, "d": 2}
Run = dict[str, Any]


def train(config: str, workdir: Path, overrides: Sequence[str]) -> float:
    """Trains with the command that a user would run; returns the seconds of its phases."""
    done = subprocess.run(
        [
            sys.executable, "main.py", "--mode=train", f"--config={config}",
            f"--workdir={workdir}", *overrides,
        ],
        cwd=REPOSITORY,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: {workdir} ended with exit code {done.returncode}; this command resumes")
    rows = read_text(workdir / "metrics.jsonl").splitlines()
    return float(sum(parse_json(row).get("seconds", 0.0) for row in rows))


def measure_archs(
    config: Config, workdir: Path, split: str, archs: Sequence[Arch]
) -> tuple[list[int], list[float]]:
    """MACs and top-1 of subnets of a run's supernet, each calibrated."""
    dataset, devices = load_dataset(config.data), mesh.data_mesh()
    space, net, variables = checkpoint.load_supernet(workdir / "supernet")
    way = best_compute(config.train.compute, mesh.platform(devices), space)
    net = net.clone(compute=way)
    variables = mesh.replicate(devices, variables)
    resolution = config.data.resolutions[0]
    images = calibration_images(config, dataset, devices, resolution)
    batches = list(evaluation_batches(config, dataset, devices, split, resolution))
    top1: list[float] = []
    for start in range(0, len(archs), GROUP):
        own = group(archs[start : start + GROUP])
        stats = calibrate_each(net, variables, own, normalized(images, config.data, devices))
        figures = measure(
            net, variables["params"], stats, own, batches, config.data.normalization, devices
        )
        top1 += [figure["top1"] for figure in figures]
    return [int(macs(space, arch, resolution)) for arch in archs], top1


def measure_run(config: Config, workdir: Path, split: str, archs: int) -> dict[str, Any]:
    """Top-1 of the grid's subnets, of a middle one, and of random ones with their front's area."""
    space = checkpoint.load_space(workdir / "supernet")
    corners = {**grid(space), "middle": space.arch_from_dict(MIDDLE)}
    keys = jax.random.split(jax.random.key(2026), archs)
    measured = [*corners.values(), *(space.sample(key) for key in keys)]
    costs, top1 = measure_archs(config, workdir, split, measured)
    random = slice(len(corners), None)
    found = [
        Found(arch, config.data.resolutions[0], score, cost)
        for arch, score, cost in zip(measured[random], top1[random], costs[random], strict=True)
    ]
    by_name = dict(zip(corners, top1, strict=False))
    middle = by_name.pop("middle")
    return {
        "smallest": by_name["smallest"],
        "middle": middle,
        "mean": float(np.mean(list(by_name.values()))),
        "largest": by_name["largest"],
        "area": hypervolume(undominated(found), max(costs)),
        "grid": by_name,
        "random": list(zip(costs[random], top1[random], strict=True)),
    }


def measure_alone(config: Config, workdir: Path, split: str, name: str) -> dict[str, Any]:
    """Top-1 of the one arch that a run trained by itself, in its column."""
    space = checkpoint.load_space(workdir / "supernet")
    own = {"smallest": space.smallest(), "middle": space.arch_from_dict(MIDDLE),
           "largest": space.largest()}[name]  # fmt: skip
    return {name: measure_archs(config, workdir, split, [own])[1][0]}


def run_one(args: argparse.Namespace, name: str, passes: float, rate: float, seed: int) -> Run:
    """Trains and measures one run."""
    text = f"{name},{passes:g}"
    kind = f"{name}{UNLABELLED}" if args.without_labels else name
    tuned = f"lr{rate:g}-" if rate else ""
    workdir = Path(args.workdir) / f"{kind.replace(', ', '-')}-{passes:g}-{tuned}seed{seed}"
    print(f"\n== {workdir.name}", flush=True)
    base = cifar10_16.get_config(text).to_dict()
    folder = Path(args.data_dir).resolve()
    overrides = [f"--config.seed={seed}", f"--config.data.data_dir={folder}"]
    if rate:
        highest = max(phase["lr"] for phase in base["phases"].values())
        for phase, fields in base["phases"].items():
            lr = fields["lr"] * rate / highest
            overrides.append(f"--config.phases.{phase}.lr={lr}")
    if args.without_labels:
        taught = [phase for phase, fields in base["phases"].items() if fields["distill"]]
        overrides += [f"--config.phases.{phase}.labels=0.0" for phase in taught]
    seconds = train(f"configs/cifar10_16.py:{text}", workdir, overrides)
    config = read_config(workdir / "config.json")
    images = len(load_dataset(config.data).train)
    measured = (
        measure_alone(config, workdir, args.split, name.removeprefix("alone_"))
        if name.startswith("alone_")
        else measure_run(config, workdir, args.split, args.archs)
    )
    return {
        "recipe": kind, "budget": passes, "rate": rate or None, "seed": seed, "split": args.split,
        "seconds": seconds, "commit": commit(),
        "passes": sum(leg.units for leg in plan(config, images))
        / (images // config.data.batch_size),
        **measured,
    }  # fmt: skip


def summary(rows: Sequence[Run]) -> list[dict[str, Any]]:
    """A line for each recipe and budget: mean and standard deviation of each column."""
    kinds = list(dict.fromkeys((row["budget"], row["recipe"], row["rate"]) for row in rows))
    lines = []
    for budget, recipe, rate in kinds:
        own = [r for r in rows if (r["budget"], r["recipe"], r["rate"]) == (budget, recipe, rate)]
        line = {"recipe": recipe, "budget": budget, "rate": rate, "seeds": len(own)}
        for column in (*COLUMNS, "seconds", "passes"):
            values = [row.get(column, math.nan) for row in own]
            spread = float(np.std(values, ddof=1)) if len(own) > 1 else math.nan
            line[column] = (float(np.mean(values)), spread)
        lines.append(line)
    return lines


def table(rows: Sequence[Run]) -> str:
    """The summary as Markdown."""
    head = (
        "| recipe | rate | seeds | passes | smallest | middle | mean of 8 | largest | area | time |"
    )
    lines = [head, "|---|" + "---:|" * 9]
    for line in summary(rows):
        cells = [_percent(*line[column]) for column in COLUMNS]
        lines.append(
            f"| {line['recipe']} | {line['rate'] or ''} | {line['seeds']}"
            f" | {line['passes'][0]:.3g} | {' | '.join(cells)} | {clock(line['seconds'][0])} |"
        )
    return "\n".join(lines)


def _percent(mean: float, spread: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.2%}" + ("" if math.isnan(spread) else f" ± {100 * spread:.2f}")


def plot(path: str, rows: Sequence[Run]) -> None:
    """Accuracy against MACs: the random subnets, each its mean over seeds, by recipe."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if "random" in row]
    budgets = sorted({row["budget"] for row in rows})
    figure = Figure(figsize=(6 * len(budgets), 4.5), layout="constrained")
    panels = figure.subplots(1, len(budgets), squeeze=False)[0]
    shown = {}
    for number, recipe in enumerate(dict.fromkeys(row["recipe"] for row in rows)):
        for axes, budget in zip(panels, budgets, strict=True):
            own = [r["random"] for r in rows if (r["recipe"], r["budget"]) == (recipe, budget)]
            if own:
                points = np.mean(own, axis=0)
                dots = axes.scatter(points[:, 0] / 1e6, points[:, 1], s=9, c=f"C{number}")
                shown[recipe] = dots
    for axes, budget in zip(panels, budgets, strict=True):
        axes.set_title(f"{budget:g} subnet passes over the images")
        axes.set_xlabel("million MACs")
    _save(path, figure, shown)


def plot_budgets(path: str, rows: Sequence[Run]) -> None:
    """Accuracy against the budget: three networks by each recipe, and each trained alone."""
    from matplotlib.figure import Figure

    lines = summary(rows)
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    columns = ("smallest", "middle", "largest")
    shown: dict[str, Any] = {}
    for axes, column in zip(figure.subplots(1, 3, sharey=True), columns, strict=True):
        recipes = [r for r in dict.fromkeys(li["recipe"] for li in lines) if "alone" not in r]
        for number, recipe in enumerate((*recipes, f"alone_{column}")):
            alone = number == len(recipes)
            own = sorted((li["budget"], *li[column]) for li in lines if li["recipe"] == recipe)
            if own:
                budgets, means, spreads = zip(*own, strict=True)
                shown["alone" if alone else recipe] = axes.errorbar(
                    budgets, means, np.nan_to_num(spreads), capsize=3, marker="o", markersize=4,
                    c="black" if alone else f"C{number}", ls="--" if alone else "-",
                )  # fmt: skip
        axes.set_title(f"the {column} network")
        axes.set_xlabel("subnet passes over the images")
        axes.set_xscale("log")
        axes.set_xticks(sorted({line["budget"] for line in lines}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    _save(path, figure, shown)


def _save(path: str, figure: Any, shown: dict[str, Any]) -> None:
    """Writes a picture of top-1, with what its colours mean beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import PercentFormatter

    for axes in figure.axes:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("top-1")
    figure.legend(list(shown.values()), list(shown), loc="outside right upper")
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # noqa: E501  # fmt: skip
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--workdir", default="runs/recipes")
    parser.add_argument("--recipes", default="ps,oneshot,delayed,single_path,halves")
    parser.add_argument("--passes", default="72")
    parser.add_argument("--rates", default="0", help="highest learning rates; 0 is the config's")
    parser.add_argument("--without-labels", action="store_true",
                        help="what is distilled learns from its teacher alone")  # fmt: skip
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--split", default="test", choices=("test", "held_out"))
    parser.add_argument("--archs", type=int, default=100)
    parser.add_argument("--json", default="")
    parser.add_argument("--picture", default="", help="of accuracy against MACs")
    parser.add_argument("--budgets-picture", default="", help="of accuracy against the budget")
    args = parser.parse_args()
    compiled.keep()
    rows: list[Run] = []
    if args.json and Path(args.json).is_file():
        rows = read_object(Path(args.json), "rows")["rows"]
    known = {tuple(row[key] for key in KEY) for row in rows}
    for passes, seed, recipe, rate in itertools.product(
        *(getattr(args, field).split(",") for field in ("passes", "seeds", "recipes", "rates"))
    ):
        kind = recipe + UNLABELLED * args.without_labels
        if (kind, float(passes), float(rate) or None, int(seed), args.split) in known:
            continue
        rows.append(run_one(args, recipe, float(passes), float(rate), int(seed)))
        print("\n" + table(rows), flush=True)
        finish(args.json, rows)  # a stop loses one run
    print("\n" + table(rows))
    counted = [row for row in rows if row["split"] == args.split]
    if args.picture:
        plot(args.picture, counted)
    if args.budgets_picture:
        plot_budgets(args.budgets_picture, counted)


def commit() -> str:
    """The repository's commit."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, text=True,
        encoding="utf-8", capture_output=True,
    )  # fmt: skip
    return done.stdout.strip()


def finish(path: str, rows: list[Run]) -> None:
    """Writes the rows with where they come from."""
    harness.finish(path, {"command": sys.argv[1:], "rows": rows})


if __name__ == "__main__":
    main()
