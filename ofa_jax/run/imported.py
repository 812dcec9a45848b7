"""A specialised network of others as a subnet like any other, with a card."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ofa_jax import mesh
from ofa_jax.errors import InputError
from ofa_jax.interop.catalogue import published
from ofa_jax.interop.once_for_all import CENTER_CROP, NORMALIZATION
from ofa_jax.names import check_name
from ofa_jax.network import build_subnet
from ofa_jax.run.card import Card
from ofa_jax.run.config import Config
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.evaluate import calibration_images, evaluation_batches, normalized
from ofa_jax.run.extract import now, preprocessing, write_subnet
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.subnets.calibrate import calibrate
from ofa_jax.subnets.evaluate import measure_one

Tree = Any


@dataclasses.dataclass(frozen=True)
class Imported:
    """A specialised network as it was read.

    Attributes:
      space: that it was cut from, with its number of classes.
      arch: of the network.
      variables: its own.
      classes: their names, in the order of the logits; () where they are not known.
      source: where it comes from, for the card.
    """

    space: SearchSpace
    arch: Arch
    variables: Tree
    classes: tuple[str, ...]
    source: dict[str, Any]


def usual_resolution(space: SearchSpace, arch: Arch) -> int:
    """The resolution of the published network of that arch, else the largest of the space."""
    values = space.arch_to_dict(arch)
    for net in published().values():
        if net.space.name == space.name and net.space.arch_to_dict(net.arch) == values:
            return net.resolution
    return max(space.resolutions)


def data_config(name: str, data_dir: str, resolution: int, corrupt: str = "stop") -> DataConfig:
    """Images as the reference makes them."""
    return DataConfig(
        name=name, data_dir=data_dir, resolutions=(resolution,), center_crop=CENTER_CROP,
        mean=NORMALIZATION["mean"], std=NORMALIZATION["std"], corrupt=corrupt,
    )  # fmt: skip


def write_imported(
    directory: Path, net: Imported, resolution: int, data: DataConfig, *, calibrated: bool = True
) -> Card:
    """Writes a network as a subnet's directory, measured and calibrated where `data` has a name.

    Args:
      directory: must not exist.
      net: the network.
      resolution: pixels that it is for.
      data: how its images are made, and which; no name measures nothing.
      calibrated: whether its batch statistics are estimated again on the training images.

    Raises:
      ValueError: the data cannot be read, or have other classes.
    """
    variables, classes = net.variables, net.classes or _numbered(net.space.num_classes)
    accuracy: dict[str, dict[str, float]] = {}
    images = 0
    if data.name:
        config = Config(init=str(directory), data=data)
        variables, accuracy, classes, images = _measured(config, net, resolution, calibrated)
    card = Card(
        name=check_name("--out", directory.name),
        space=net.space.name,
        arch=net.space.arch_to_dict(net.arch),
        resolution=resolution,
        classes=classes,
        preprocessing=preprocessing(data, resolution),
        macs=int(macs(net.space, net.arch, resolution)),
        params=int(params(net.space, net.arch)),
        accuracy=accuracy,
        calibration_images=images,
        largest_difference_from_supernet=0.0,
        source={**net.source, **({"dataset": data.name} if data.name else {})},
        created=now(),
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    write_subnet(directory, net.space, variables, card)
    return card


def _measured(
    config: Config, net: Imported, resolution: int, calibrated: bool
) -> tuple[Tree, dict[str, dict[str, float]], tuple[str, ...], int]:
    """The variables, their figures on test, the classes, and how many images calibrated them."""
    dataset = load_dataset(config.data)
    check_classes(net, dataset.class_names, config.data.name)
    subnet, variables = build_subnet(net.space, net.arch), net.variables
    devices, count = mesh.data_mesh(1), 0
    if calibrated:
        images = calibration_images(config, dataset, devices, resolution)
        batches = normalized(images, config.data, devices)
        stats = calibrate(subnet, variables, None, batches)
        variables = jax.device_get({"params": variables["params"], "batch_stats": stats})
        count = sum(len(batch) for batch in images)
    with_labels = evaluation_batches(config, dataset, devices, "test", resolution)
    figures = measure_one(subnet, variables, with_labels, config.data.normalization, devices)
    return variables, {"test": figures}, tuple(dataset.class_names), count


def check_classes(net: Imported, names: Sequence[str], data: str) -> None:
    """Raises `ValueError` unless a network has the classes of a dataset, in its order."""
    if net.space.num_classes != len(names):
        raise InputError(f"it has {net.space.num_classes} classes, {data} {len(names)}")
    for theirs, ours in zip(net.classes, names, strict=False):
        if theirs != ours:
            raise InputError(f"it has the class {theirs!r} where {data} has {ours!r}")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))
