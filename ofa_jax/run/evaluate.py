"""Evaluation: subnets of the grid, each calibrated first, with what they cost."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ofa_jax import checkpoint, mesh
from ofa_jax.errors import InputError
from ofa_jax.files import naming, read_object, write_json
from ofa_jax.network import Network, best_compute
from ofa_jax.normalization import normalize_images
from ofa_jax.plain import build
from ofa_jax.run import processes
from ofa_jax.run.config import Config
from ofa_jax.run.data import pipeline
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.data.transforms import other_normalization
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.run.metrics import track
from ofa_jax.run.workdir import check_unchanged
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Choices, SearchSpace
from ofa_jax.subnets.calibrate import calibrate_each, group
from ofa_jax.subnets.evaluate import grid, measure
from ofa_jax.supernet import other_resolutions, other_space, read_supernet_card

Tree = Any
Row = dict[str, Any]


def evaluate_once(config: Config, workdir: Path) -> None:
    """Evaluates unless `evaluation.json` exists already; then its table is printed."""
    path = workdir / "evaluation.json"
    if not processes.from_first(path.exists):
        evaluate(config, workdir)
        return
    print(f"evaluation is complete: {path}")
    print(table(read_evaluation(path)))


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What the table shows of a row of `evaluation.json`."""

    name: str
    resolution: int
    top1: float
    loss: float
    macs: int
    params: int


def read_evaluation(path: Path) -> list[Row]:
    """The rows of an `evaluation.json`, as far as `table` shows them.

    Raises:
      ValueError: not such a file; names it and the field.
    """
    with naming(path):
        rows = read_object(path, "subnets")["subnets"]
        return [
            dataclasses.asdict(row)
            for row in build(tuple[_Measured, ...], rows, "subnets", strict=False)
        ]


def evaluate(config: Config, workdir: Path) -> None:
    """Evaluates the trained supernet's grid, prints it and writes `evaluation.json`.

    Raises:
      ValueError: there is no trained supernet in `workdir`, or it cannot be read.
    """
    dataset, space, net, variables = load_trained(config, workdir)
    devices = mesh.data_mesh(config.parallel.devices)
    way = best_compute(config.train.compute, mesh.platform(devices), space)
    net = net.clone(compute=way)
    variables = mesh.replicate(devices, variables)
    rows = evaluate_grid(net, variables, config, dataset, devices, config.evaluate.split)
    print(table(rows))
    mean = sum(row["top1"] for row in rows) / len(rows)
    print(f"mean top-1 {mean:.2%} on {config.evaluate.split}, each subnet calibrated")
    result = {"space": space.name, "mean_top1": mean, "subnets": rows}
    path = workdir / "evaluation.json"
    processes.from_first(lambda: write_json(path, result))


def load_trained(config: Config, workdir: Path) -> tuple[Dataset, SearchSpace, Network, Tree]:
    """The run's dataset and its trained supernet: `dataset, space, net, variables`.

    Raises:
      ValueError: there is no supernet, or it is of another space, has other classes than the
        dataset, or was trained on other images, or on images of other sizes or normalised
        otherwise.
    """
    dataset = load_dataset(config.data)
    check_unchanged(workdir, config, dataset)
    directory = workdir / "supernet"
    space, net, variables = checkpoint.load_supernet(directory)
    card = read_supernet_card(directory)
    if space.num_classes != len(dataset.class_names):
        raise InputError(
            f"{directory} has {space.num_classes} classes, {config.data.name}"
            f" {len(dataset.class_names)}: expected the data that it was trained on"
        )
    other = other_space(space, config.search_space(space.num_classes))
    if other:
        raise InputError(f"{directory} is of another space: {other}")
    difference = other_normalization(card.normalization, config.data)
    difference = difference or other_resolutions(card.resolutions, config.data.resolutions)
    if difference:
        raise InputError(f"{directory} was trained with other images: {difference}")
    for ours, trained in zip(dataset.class_names, card.classes, strict=False):
        if ours != trained:
            raise InputError(
                f"{directory} was trained with the class {trained!r} where {config.data.name} has"
                f" {ours!r}"
            )
    return dataset, space, net, variables


def evaluate_grid(
    net: Network,
    variables: Tree,
    config: Config,
    dataset: Dataset,
    devices: Mesh,
    split: str,
    choices: Choices | None = None,
) -> list[Row]:
    """One row per subnet of the grid and resolution: name, arch, top1, loss, macs, params, ...

    The grid is {smallest, largest} depth x expand x kernel of the open `choices` (default: all)
    at each of `config.evaluate.resolutions`. Images are read once for all subnets, and each batch
    is split over the devices. Source:
    `progressive_shrinking.validate` of the reference.
    """
    space, rows = net.space, []
    ends = {min(config.data.resolutions), max(config.data.resolutions)}
    for resolution in config.evaluate.resolutions or sorted(ends):
        images = calibration_images(config, dataset, devices, resolution)
        corners = grid(space, choices)
        archs = group(list(corners.values()))
        tracked = track(
            images, len(images), f"calibrating {len(corners)} subnets at {resolution} px"
        )
        batches = normalized(tracked, config.data, devices)
        stats = calibrate_each(net, variables, archs, batches)
        tested = evaluation_batches(config, dataset, devices, split, resolution)
        figures = measure(
            net, variables["params"], stats, archs, tested, config.data.normalization, devices
        )
        for (name, arch), measured in zip(corners.items(), figures, strict=True):
            rows.append(
                {
                    "name": name,
                    "arch": space.arch_to_dict(arch),
                    "resolution": resolution,
                    "split": split,
                    **measured,
                    "macs": int(macs(space, arch, resolution)),
                    "params": int(params(space, arch)),
                }
            )
    return rows


def calibration_images(
    config: Config, dataset: Dataset, devices: Mesh, resolution: int
) -> list[np.ndarray]:
    """Batches of uint8 training images for calibration at one resolution, always the same."""
    images, size = config.evaluate.calibration_images, config.evaluate.calibration_batch_size
    return pipeline.calibration_batches(
        dataset, config.data, resolution, images, size, devices.size, mesh.shard(devices)
    )


def normalized(
    batches: Iterable[np.ndarray], data: DataConfig, devices: Mesh
) -> Iterator[jax.Array]:
    """The batches as the nets take them, one after the other, split over the devices."""
    for images in batches:
        yield normalize_images(mesh.shard_batch(devices, images), *data.normalization)


def evaluation_batches(
    config: Config, dataset: Dataset, devices: Mesh, split: str, resolution: int
) -> Iterator[pipeline.Batch]:
    """This process's part of the batches of a split at one resolution, with progress."""
    size = -(-batch_size(config, dataset) // devices.size) * devices.size
    part = mesh.shard(devices)
    batches = pipeline.evaluation_batches(dataset, split, config.data, resolution, size, part)
    total = -(-len(dataset.split(split)) // size)
    return track(batches, total, f"evaluating at {resolution} px")


def batch_size(config: Config, dataset: Dataset) -> int:
    """Images that are measured at a time: a larger batch than a split would be padding."""
    most = max(len(dataset.held_out), len(dataset.test))
    return min(config.evaluate.batch_size, most)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'subnet':<12} {'px':>4} {'top-1':>7} {'loss':>6} {'MACs':>9} {'params':>9}"]
    for row in rows:
        lines.append(
            f"{row['name']:<12} {row['resolution']:>4} {row['top1']:>7.2%} {row['loss']:>6.3f}"
            f" {row['macs'] / 1e6:>8.2f}M {row['params'] / 1e6:>8.3f}M"
        )
    return "\n".join(lines)
