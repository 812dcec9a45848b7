"""`--mode=search`: from a trained supernet to the subnets of a budget, or of every budget.

Random subnets are measured, a predictor learns from them, a search queries it, and the winners are
measured again, beside random subnets of the same cost.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ofa_jax import mesh
from ofa_jax.errors import InputError
from ofa_jax.files import write_json
from ofa_jax.network import Network, best_compute
from ofa_jax.run import processes
from ofa_jax.run.collect import (
    Measured,
    collect,
    measure_archs,
    read_images,
)
from ofa_jax.run.config import Config
from ofa_jax.run.costs import UNITS, check_measured_here, cost_function, search_resolutions
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.evaluate import load_trained
from ofa_jax.run.groups.subnets import RANDOM_POOL
from ofa_jax.run.picture import draw_front
from ofa_jax.search.cost import macs, params
from ofa_jax.search.evolution import Found, check_cost, evolve
from ofa_jax.search.front import Front, find_front
from ofa_jax.search.functions import Function
from ofa_jax.search.predictor import Predictor, save_predictor, train_predictor
from ofa_jax.space import Arch
from ofa_jax.subnets.evaluate import grid

Tree = Any


@dataclasses.dataclass(frozen=True)
class SearchRun:
    """What all steps of a search need."""

    config: Config
    directory: Path
    net: Network
    variables: Tree
    dataset: Dataset
    devices: Mesh
    cost: Function

    def named(self, cost: float) -> str:
        """What a winner of this cost is called: "macs-1.234M"."""
        kind = self.config.search.cost
        unit, size = UNITS[kind]
        return f"{kind}-{cost / size:.4g}{unit.split()[0]}"

    def shown(self, cost: float) -> str:
        """A cost as people read it."""
        unit, size = UNITS[self.config.search.cost]
        return f"{cost / size:.4g} {unit}"


def check_search(config: Config) -> None:
    """Checks the settings of a later search of the run, so that nothing is trained in vain.

    Raises:
      ValueError: a latency table that lacks a needed key or resolution, or a constraint below the
        cheapest subnet's cost.
    """
    settings = config.search
    unmeasured = settings.cost == "latency" and not settings.latency_table
    if unmeasured or not (settings.constraints or settings.cost == "latency"):
        return
    space = config.search_space(len(load_dataset(config.data).class_names))
    cost = cost_function(config, space, Path())
    check_cost(space, cost, settings.constraints, search_resolutions(config))


def search_once(config: Config, workdir: Path) -> None:
    """Searches unless `search/found.json` exists already."""
    path = workdir / "search" / "found.json"
    if processes.from_first(path.exists):
        print(f"search is complete: {path}")
        return
    search(config, workdir)


def search(config: Config, workdir: Path) -> None:
    """Searches the run's supernet and writes `search/`.

    `measured.jsonl` has the subnets that the predictor learnt from, `predictor.npz` the predictor,
    `found.json` the winners as predicted and as measured, `<name>.json` each winner's arch, and
    after a search for the whole front `front.json` and `front.png`.

    Raises:
      ValueError: no supernet; a predictor below `least_tau`; an impossible constraint, with the
        smallest achievable cost; a latency table without a needed key or resolution.
    """
    run = _prepare(config, workdir)
    measured = collect(run.net, run.variables, config, run.dataset, run.devices,
                       run.directory / "measured.jsonl")  # fmt: skip
    predictor = _predictor(run, measured)
    front, winners = _search(run, predictor)
    rows = _measure(run, predictor, winners)
    random = _compare(run, winners[len(winners) // 2])
    print(_table(run, rows))
    if random:
        print(_comparison(run, rows[len(winners) // 2], random))
    processes.from_first(lambda: _write(run, predictor, measured, front, rows, random))


def _search(run: SearchRun, predictor: Predictor) -> tuple[Front | None, list[Found]]:
    """The whole front, if there are no constraints, and the winners."""
    settings, space = run.config.search, run.net.space
    options: dict[str, Any] = {
        "resolutions": search_resolutions(run.config),
        "key": jax.random.key(run.config.seed),
        "generations": settings.generations,
    }
    if settings.population:
        options["population"] = settings.population
    if settings.constraints:
        return None, evolve(space, predictor, run.cost, settings.constraints, **options)
    front = find_front(space, predictor, run.cost, **options)
    print(
        f"front of {len(front.found)} subnets, hypervolume {front.hypervolume:.4f}, of"
        f" {len(front.seen):,} looked at"
    )
    return front, spread(front.found, settings.winners)


def _prepare(config: Config, workdir: Path) -> SearchRun:
    dataset, space, net, variables = load_trained(config, workdir)
    devices = mesh.data_mesh(config.parallel.devices)
    way = best_compute(config.train.compute, mesh.platform(devices), space)
    net = net.clone(compute=way)
    directory = workdir / "search"
    processes.from_first(lambda: directory.mkdir(exist_ok=True))
    processes.from_first(lambda: check_measured_here(config, directory))
    cost = cost_function(config, space, directory)
    return SearchRun(
        config, directory, net, mesh.replicate(devices, variables), dataset, devices, cost
    )


def _predictor(run: SearchRun, measured: Measured) -> Predictor:
    key = jax.random.key(run.config.seed)
    predictor = train_predictor(run.net.space, *measured, key)
    report, least = predictor.report, run.config.search.least_tau
    print(
        f"predictor, on {report['held_out_archs']} subnets it has not seen: Kendall tau"
        f" {report['kendall_tau']:.2f}, Spearman {report['spearman']:.2f}, RMSE"
        f" {100 * report['rmse']:.2f} points"
    )
    processes.from_first(lambda: save_predictor(run.directory / "predictor.npz", predictor))
    if report["kendall_tau"] < least:
        raise InputError(
            f"the predictor's Kendall tau is {report['kendall_tau']:.2f}, below"
            f" search.least_tau={least}: more search.archs than {run.config.search.archs} may mend"
            " it; --config.search.least_tau=-1 searches all the same"
        )
    return predictor


def spread(front: Sequence[Found], count: int) -> list[Found]:
    """So many of a front, evenly spaced in cost."""
    marks = np.linspace(front[0].cost, front[-1].cost, count + 2)[1:-1]
    chosen = [max((f for f in front if f.cost <= mark), key=lambda f: f.cost) for mark in marks]
    return list({id(f): f for f in chosen}.values())


# -- measuring the winners -------------------------------------------------------------------------


def _measured_top1(run: SearchRun, archs: Sequence[Arch], resolution: int) -> list[float]:
    """Held-out top-1 of each arch, calibrated, at one resolution."""
    images = read_images(run.config, run.dataset, run.devices, resolution)
    figures = measure_archs(run.net, run.variables, archs, run.config, images, run.devices)
    return [figure["top1"] for figure in figures]


def names_of(run: SearchRun, winners: Sequence[Found]) -> list[str]:
    """What the winners are called, by cost; numbered where the costs of different ones look alike.

    Files are called so: no winner may take the place of another.
    """
    taken: dict[str, Found] = {}
    names = []
    for one in winners:
        cost = run.named(one.cost)
        for name in (cost, *(f"{cost}-{number}" for number in range(2, len(winners) + 1))):
            other = taken.setdefault(name, one)
            if (other.arch, other.resolution) == (one.arch, one.resolution):
                names.append(name)
                break
    return names


def _measure(
    run: SearchRun, predictor: Predictor, winners: Sequence[Found]
) -> list[dict[str, Any]]:
    """The winners as rows: arch, costs, accuracy as predicted and as measured."""
    space, top1, names = run.net.space, {}, names_of(run, winners)
    for resolution in sorted({f.resolution for f in winners}):
        own = [i for i, f in enumerate(winners) if f.resolution == resolution]
        values = _measured_top1(run, [winners[i].arch for i in own], resolution)
        top1.update(dict(zip(own, values, strict=True)))
    return [
        {
            "name": names[i],
            "arch": space.arch_to_dict(f.arch),
            "resolution": f.resolution,
            run.config.search.cost: f.cost,
            "predicted": f.score,
            "held_out": top1[i],
            "macs": int(macs(space, f.arch, f.resolution)),
            "params": int(params(space, f.arch)),
        }
        for i, f in enumerate(winners)
    ]


def _compare(run: SearchRun, winner: Found) -> list[dict[str, float]]:
    """Random subnets that cost what the winner does, at its resolution: cost and top-1."""
    space, count = run.net.space, run.config.search.random_archs
    if not count:
        return []
    keys = jax.random.split(jax.random.fold_in(jax.random.key(run.config.seed), 1), RANDOM_POOL)
    archs = jax.jit(jax.vmap(space.sample))(keys)
    costs = jax.jit(jax.vmap(lambda arch: run.cost(arch, winner.resolution)))(archs)
    nearest = np.argsort(np.abs(np.asarray(costs) - winner.cost), stable=True)[:count]
    chosen = [jax.tree.map(lambda leaf, i=i: leaf[i], archs) for i in nearest]
    top1 = _measured_top1(run, chosen, winner.resolution)
    return [{"cost": float(costs[i]), "held_out": t} for i, t in zip(nearest, top1, strict=True)]


# -- reporting -------------------------------------------------------------------------------------


def _table(run: SearchRun, rows: Sequence[dict[str, Any]]) -> str:
    unit, size = UNITS[run.config.search.cost]
    lines = [f"{'subnet':<16} {'px':>4} {unit:>18} {'predicted':>10} {'held out':>9} {'params':>9}"]
    for row in rows:
        lines.append(
            f"{row['name']:<16} {row['resolution']:>4} {row[run.config.search.cost] / size:>18.4g}"
            f" {row['predicted']:>10.2%} {row['held_out']:>9.2%} {row['params'] / 1e6:>8.3f}M"
        )
    return "\n".join(lines)


def _comparison(run: SearchRun, row: dict[str, Any], random: Sequence[dict[str, float]]) -> str:
    top1, costs = ([r[key] for r in random] for key in ("held_out", "cost"))
    beaten = sum(row["held_out"] > value for value in top1)
    level = sum(row["held_out"] == value for value in top1)
    return (
        f"{row['name']}: {row['held_out']:.2%}; {len(random)} random subnets of"
        f" {run.shown(sum(costs) / len(costs))} on average: mean {np.mean(top1):.2%}, best"
        f" {max(top1):.2%}; it beats {beaten} and is level with {level}"
    )


def _write(
    run: SearchRun,
    predictor: Predictor,
    measured: Measured,
    front: Front | None,
    rows: list[dict[str, Any]],
    random: list[dict[str, float]],
) -> None:
    space, settings = run.net.space, run.config.search
    about = {"space": space.name, "cost": settings.cost, "predictor": dict(predictor.report)}
    for row in rows:
        arch = {**row["arch"], "resolution": row["resolution"]}
        write_json(run.directory / f"{row['name']}.json", arch)
    if front is not None:
        described = [
            {"arch": space.arch_to_dict(f.arch), "resolution": f.resolution,
             settings.cost: f.cost, "predicted": f.score}
            for f in front.found
        ]  # fmt: skip
        result = {**about, "hypervolume": front.hypervolume, "front": described}
        write_json(run.directory / "front.json", result)
        _draw(run, predictor, measured, front, rows)
    # Last: once it exists, the others do too.
    write_json(run.directory / "found.json", {**about, "found": rows, "random": random})
    print(f"search written to {run.directory}")


def _draw(
    run: SearchRun,
    predictor: Predictor,
    measured: Measured,
    front: Front,
    rows: list[dict[str, Any]],
) -> None:
    space, sizes = run.net.space, search_resolutions(run.config)
    corners = [(arch, size) for arch in grid(space).values() for size in (sizes[0], sizes[-1])]
    uniform = [(float(run.cost(a, r)), float(predictor(a, r))) for a, r in corners]
    costs = jax.jit(jax.vmap(run.cost))(measured.archs, measured.resolutions)
    draw_front(
        run.directory / "front.png",
        front,
        uniform,
        list(zip(np.asarray(costs), measured.top1, strict=True)),
        [(row[run.config.search.cost], row["held_out"]) for row in rows],
        UNITS[run.config.search.cost],
    )
