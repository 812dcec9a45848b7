"""The extraction command: one verified, calibrated subnet as a directory of its own."""

import datetime
import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import checkpoint, mesh, processes
from ofa_jax.config import Config, DataConfig
from ofa_jax.data.sources import load_dataset
from ofa_jax.data.transforms import normalize_images
from ofa_jax.models import Network
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import space_to_dict
from ofa_jax.subnets.calibrate import calibrate
from ofa_jax.subnets.card import Card, Preprocessing, write_card
from ofa_jax.subnets.evaluate import (
    calibration_images,
    evaluation_batches,
    measure_one,
    normalized,
)
from ofa_jax.subnets.extract import extract

TOLERANCE = 1e-4  # of the largest logit, float32


def extract_to(
    config: Config,
    workdir: Path,
    arch_text: str,
    resolution: int | None = None,
    name: str = "",
    overwrite: bool = False,
) -> Path:
    """Cuts one subnet out of the run's supernet and writes `subnets/<name>/`.

    The subnet is calibrated on training images, compared with the masked supernet and measured on
    the test split. The directory holds `orbax/` (for `load_subnet`), `arch.json`, `card.json` and a
    `README.md`.

    Args:
      config: the run's configuration.
      workdir: the run's directory.
      arch_text: "largest", "smallest", a JSON object such as {"ks", "e", "d"}, or a file with one.
      resolution: pixels; default the arch file's, else the largest the run was trained at.
      name: directory name; default the word, the file's stem or a hash of the arch.
      overwrite: whether an existing subnet of that name may be replaced.

    Raises:
      ValueError: a wrong arch, no supernet, an existing subnet, or logits that differ.
    """
    space, net, variables = checkpoint.load_supernet(workdir / "supernet")
    arch, asked, default_name = read_arch(space, arch_text)
    resolution = resolution or asked or max(config.data.resolutions)
    directory = workdir / "subnets" / (name or default_name)
    if directory.exists() and not overwrite:
        raise ValueError(f"{directory} exists: give another --name, or --overwrite to replace it")

    dataset = load_dataset(config.data)
    devices = mesh.data_mesh(config.parallel.devices)
    images = calibration_images(config, dataset, devices, resolution)
    calibrated = _calibrated(net, mesh.replicate(devices, variables), arch,
                             normalized(images, config.data, devices))  # fmt: skip
    subnet, sub_variables = extract(space, calibrated, arch)
    batches = evaluation_batches(config, dataset, devices, "test", resolution)
    first = next(batches)
    sample = normalize_images(jnp.asarray(first["image"]), config.data.mean, config.data.std)
    difference = check_equal(net, calibrated, arch, subnet, sub_variables, sample)
    every_batch = itertools.chain([first], batches)
    figures = measure_one(subnet, sub_variables, every_batch, config.data, devices)
    card = Card(
        name=directory.name,
        space=space.name,
        arch=space.arch_to_dict(arch),
        resolution=resolution,
        classes=tuple(dataset.class_names),
        preprocessing=preprocessing(config.data, resolution),
        macs=int(macs(space, arch, resolution)),
        params=int(params(space, arch)),
        accuracy={"test": figures},
        calibration_images=sum(len(i) for i in images) * mesh.shard(devices)[1],
        largest_difference_from_supernet=difference,
        source={"run": workdir.name, "dataset": config.data.name, "seed": config.seed},
        created=now(),
    )
    processes.from_first(lambda: write_subnet(directory, space, sub_variables, card))
    print(
        f"subnet {card.name}: top-1 {figures['top1']:.2%} on test, {card.macs / 1e6:.2f}M MACs,"
        f" {card.params / 1e6:.3f}M params, written to {directory}"
    )
    return directory


def _calibrated(net: Network, variables: Any, arch: Arch, batches: Iterable[jax.Array]) -> Any:
    """The supernet's variables with the statistics of one arch, on the host."""
    stats = calibrate(net, variables, arch, batches)
    return jax.device_get({"params": variables["params"], "batch_stats": stats})


def preprocessing(data: DataConfig, resolution: int) -> Preprocessing:
    """How the pipeline makes evaluation images of that resolution."""
    shorter = math.ceil(resolution / data.center_crop)
    return Preprocessing(shorter, data.center_crop, data.mean, data.std)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read_arch(space: SearchSpace, text: str) -> tuple[Arch, int | None, str]:
    """Reads what `--arch` takes: the arch, its resolution where the JSON names one, and a name.

    Raises:
      ValueError: neither a word, a readable file nor JSON; or an arch outside the space.
    """
    corners = {"largest": space.largest, "smallest": space.smallest}
    if text in corners:
        return corners[text](), None, text
    path, name = Path(text), ""
    if not text.lstrip().startswith("{"):
        if not path.is_file():
            raise ValueError(
                f"--arch={text!r}: expected 'largest', 'smallest', a JSON object or a file"
            )
        text, name = path.read_text(), path.stem
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--arch={name or text!r} is not JSON: {error}") from error
    if not isinstance(values, dict):
        keys = ", ".join(repr(d.key) for d in space.dimensions.values() if d.key)
        raise ValueError(f"--arch={name or text!r}: expected an object with {keys}")
    arch = space.arch_from_dict(values)
    canonical = json.dumps(space.arch_to_dict(arch)).encode()
    digest = hashlib.sha256(canonical).hexdigest()[:8]
    resolution = values.get("resolution")
    if resolution is not None and (not isinstance(resolution, int) or resolution < 1):
        raise ValueError(f"arch['resolution']={resolution!r}: expected pixels")
    return arch, resolution, name if name and name != "arch" else f"arch-{digest}"


def check_equal(
    net: Network,
    variables: Any,
    arch: Arch,
    subnet: Network,
    sub_variables: Any,
    images: jax.Array,
) -> float:
    """The largest difference between supernet's and subnet's logits, over the largest logit.

    Raises:
      ValueError: it is above `TOLERANCE`.
    """
    masked = np.asarray(jax.jit(net.apply)(variables, images, arch))
    small = np.asarray(jax.jit(subnet.apply)(sub_variables, images))
    difference = float(np.abs(masked - small).max() / np.abs(masked).max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the subnet's logits differ from the supernet's by {difference:.1e} of the largest:"
            f" expected at most {TOLERANCE:.0e}"
        )
    return difference


def write_subnet(directory: Path, space: SearchSpace, variables: Any, card: Card) -> None:
    """Writes a subnet's directory, complete or not at all."""
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    description = {"space": space_to_dict(space), "arch": card.arch}
    checkpoint.save_network(temporary / "orbax", variables, description)
    arch = {**card.arch, "resolution": card.resolution}
    checkpoint.write_json(temporary / "arch.json", arch)
    write_card(temporary, card)
    if directory.exists():
        shutil.rmtree(directory)
    temporary.rename(directory)


def extract_all(config: Config, workdir: Path) -> None:
    """Extracts the corners that the config names and what the search found, unless it is there."""
    for text in (*config.extract.archs, *processes.from_first(lambda: found_archs(workdir))):
        directory = workdir / "subnets" / Path(text).stem
        if processes.from_first(directory.exists):
            print(f"subnet {directory.name} is there: {directory}")
        else:
            extract_to(config, workdir, text)


def found_archs(workdir: Path) -> list[str]:
    """The arch files of what the last search found."""
    path = workdir / "search" / "found.json"
    if not path.exists():
        return []
    return [
        str(path.with_name(f"{row['name']}.json")) for row in json.loads(path.read_text())["found"]
    ]


def middle_winner(workdir: Path) -> str:
    """The name of the subnet in the middle of what the last search found, by cost."""
    names = [Path(path).stem for path in found_archs(workdir)]
    return names[len(names) // 2]
