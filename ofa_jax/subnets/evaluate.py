"""Evaluation: subnets of the grid, each calibrated first, with what they cost."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ofa_jax import checkpoint, mesh, processes
from ofa_jax.config import Config, DataConfig
from ofa_jax.data import pipeline
from ofa_jax.data.sources import Dataset, load_dataset
from ofa_jax.data.transforms import normalize_images, other_normalization
from ofa_jax.errors import InputError
from ofa_jax.files import naming, read_object, write_json
from ofa_jax.metrics import track
from ofa_jax.models import Network, best_compute
from ofa_jax.plain import build
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Arch, Choices, SearchSpace
from ofa_jax.subnets.calibrate import GROUP, Group, calibrate_each, group, of_each
from ofa_jax.supernet import other_resolutions, other_space, read_supernet_card

Tree = Any
Row = dict[str, Any]


def evaluate_once(config: Config, workdir: Path) -> None:
    """Evaluates unless `evaluation.json` is there already, whose table is then printed."""
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
    net = net.clone(compute=best_compute(config.train.compute, mesh.platform(devices)))
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
        dataset, or was trained on images of other sizes or normalised otherwise.
    """
    dataset = load_dataset(config.data)
    directory = workdir / "supernet"
    space, net, variables = checkpoint.load_supernet(directory)
    card = read_supernet_card(directory)
    if space.num_classes != len(dataset.class_names):
        raise ValueError(
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
            raise ValueError(
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
        told = track(images, len(images), f"calibrating {len(corners)} subnets at {resolution} px")
        batches = normalized(told, config.data, devices)
        stats = calibrate_each(net, variables, archs, batches)
        tested = evaluation_batches(config, dataset, devices, split, resolution)
        figures = measure(net, variables["params"], stats, archs, tested, config.data, devices)
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


def grid(space: SearchSpace, choices: Choices | None = None) -> dict[str, Arch]:
    """The corners of the open choices by name: "largest", "smallest" of the space, "d2-e6-k3"."""
    opened = space.open_choices() if choices is None else choices
    ends = []
    for field in space.dimensions:
        mask = np.asarray(getattr(opened, field))
        ends.append(sorted({int(np.argmax(mask)), len(mask) - 1 - int(np.argmax(mask[::-1]))}))
    corners = [dict(zip(space.dimensions, c, strict=True)) for c in itertools.product(*ends)]
    return {corner_name(space, indices): space.everywhere(indices) for indices in corners}


def corner_name(space: SearchSpace, indices: dict[str, int]) -> str:
    """The name of the subnet with one choice index for each dimension."""
    elastic = {f: getattr(space, f"{f}s") for f in ("depth", "expand", "kernel", "width")}
    elastic = {field: values for field, values in elastic.items() if len(values) > 1}
    if all(indices[field] == len(values) - 1 for field, values in elastic.items()):
        return "largest"
    if not any(indices[field] for field in elastic):
        return "smallest"
    return "-".join(f"{field[0]}{values[indices[field]]:g}" for field, values in elastic.items())


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
        yield normalize_images(mesh.shard_batch(devices, images), data.mean, data.std)


def evaluation_batches(
    config: Config, dataset: Dataset, devices: Mesh, split: str, resolution: int
) -> Iterator[pipeline.Batch]:
    """This process's part of the batches of a split at one resolution, with progress."""
    size = -(-config.evaluate.batch_size // devices.size) * devices.size
    part = mesh.shard(devices)
    batches = pipeline.evaluation_batches(dataset, split, config.data, resolution, size, part)
    total = -(-len(dataset.split(split)) // size)
    return track(batches, total, f"evaluating at {resolution} px")


def measure(
    net: Network,
    params: Tree,
    batch_stats: Tree,
    archs: Group,
    batches: Iterable[pipeline.Batch],
    data: DataConfig,
    devices: Mesh,
) -> list[dict[str, float]]:
    """{"top1", "loss"} of each calibrated subnet of a group: share correct, mean nats.

    Args:
      net: the supernet.
      params: of the net.
      batch_stats: of each subnet, stacked, as `calibrate_each` gives them.
      archs: of the subnets.
      batches: {"image", "label", "weight"}, this process's part of each.
      data: how images are normalised.
      devices: each batch is split over them.

    Raises:
      ValueError: no image could be read.
    """
    sums = [
        _sums_of_each(net, data, params, batch_stats, archs, mesh.shard_batch(devices, batch))
        for batch in batches
    ]
    return [_figures(row) for row in np.sum(jax.device_get(sums), axis=0)[: archs.number]]


def measure_one(
    subnet: Network,
    variables: Tree,
    batches: Iterable[pipeline.Batch],
    data: DataConfig,
    devices: Mesh,
) -> dict[str, float]:
    """`measure` of one extracted subnet with its own variables."""
    placed, sums = mesh.replicate(devices, variables), []
    for batch in batches:
        split = mesh.shard_batch(devices, batch)
        logits = logits_of(subnet, data, placed, None, split["image"])
        sums.append(_count(logits, split["label"], split["weight"]))
    return _figures(np.sum(jax.device_get(sums), axis=0))


def _figures(sums: np.ndarray) -> dict[str, float]:
    correct, loss, count = sums
    if not count:
        raise ValueError("no image of the split could be read")
    return {"top1": float(correct / count), "loss": float(loss / count)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sums_of_each(
    net: Network, data: DataConfig, params: Tree, batch_stats: Tree, archs: Group, batch: Any
) -> jax.Array:
    """`_count` of each subnet of a group, `[GROUP, 3]`."""

    def sums(arch: Arch, stats: Tree) -> jax.Array:
        variables = {"params": params, "batch_stats": stats}
        logits = logits_of(net, data, variables, arch, batch["image"])
        return _count(logits, batch["label"], batch["weight"])

    return of_each(sums, archs, jnp.zeros((GROUP, 3), jnp.float32), batch_stats)


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits_of(
    net: Network, data: DataConfig, variables: Tree, arch: Arch | None, images: jax.Array
) -> jax.Array:
    """Logits `[batch, classes]` of uint8 images `[batch, height, width, 3]`."""
    logits: Any = net.apply(variables, normalize_images(images, data.mean, data.std), arch)
    return logits


@jax.jit
def _count(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Images correct, the sum of their losses and their number, `[3]`."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (logits.argmax(-1).astype(labels.dtype) == labels).astype(weight.dtype)
    return jnp.stack([(correct * weight).sum(), (losses * weight).sum(), weight.sum()])


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'subnet':<12} {'px':>4} {'top-1':>7} {'loss':>6} {'MACs':>9} {'params':>9}"]
    for row in rows:
        lines.append(
            f"{row['name']:<12} {row['resolution']:>4} {row['top1']:>7.2%} {row['loss']:>6.3f}"
            f" {row['macs'] / 1e6:>8.2f}M {row['params'] / 1e6:>8.3f}M"
        )
    return "\n".join(lines)
