"""The extraction command: one verified, calibrated subnet as a directory of its own."""

import dataclasses
import datetime
import difflib
import hashlib
import itertools
import json
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ofa_jax import checkpoint, mesh, storage
from ofa_jax.deploy.compare import TOLERANCE
from ofa_jax.errors import InputError
from ofa_jax.families import space_to_dict
from ofa_jax.files import (
    JsonError,
    naming,
    parse_json,
    read_json,
    read_object,
    shown,
    write_json,
    write_text,
)
from ofa_jax.interop.catalogue import published
from ofa_jax.names import check_name, place
from ofa_jax.network import Network, best_compute
from ofa_jax.normalization import Normalization
from ofa_jax.plain import build
from ofa_jax.run import processes
from ofa_jax.run.card import CARD, LABELS, Card, Preprocessing, foreign_file, labels
from ofa_jax.run.card_writer import write_card
from ofa_jax.run.config import Config
from ofa_jax.run.evaluate import (
    calibration_images,
    evaluation_batches,
    load_trained,
    normalized,
)
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.search.cost import macs, params
from ofa_jax.space import PIXELS, Arch, SearchSpace
from ofa_jax.subnets.calibrate import calibrate
from ofa_jax.subnets.evaluate import logits_of, measure_one
from ofa_jax.subnets.extract import extract

Cut = tuple[Network, Any, Arch | None]  # a net, its variables, and the arch that it is called with


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
    the test split. The directory holds `orbax/` (for `load_subnet`), `arch.json`, `labels.txt`,
    `card.json` and a `README.md`.

    Args:
      config: the run's configuration.
      workdir: the run's directory.
      arch_text: "largest", "smallest", "published:NAME", a JSON object such as {"ks", "e", "d"}, or
        a file with one.
      resolution: pixels; default the arch file's, else the largest the run was trained at.
      name: directory name; default the word, the file's stem or a hash of the arch.
      overwrite: whether an existing subnet of that name may be replaced.

    Raises:
      ValueError: a wrong arch or name, no supernet, an existing subnet, or logits that differ.
    """
    dataset, space, net, variables = load_trained(config, workdir)
    arch, own_resolution, default_name = read_arch(space, arch_text)
    resolution = resolution or own_resolution or max(config.data.resolutions)
    directory = place_of(workdir, name or default_name, overwrite)
    devices = mesh.data_mesh(config.parallel.devices)
    images = calibration_images(config, dataset, devices, resolution)
    # As evaluation computes, whose program it then shares; compared below with masks.
    way = best_compute(config.train.compute, mesh.platform(devices), net.space)
    evaluation_net = net.clone(compute=way)
    calibrated = _calibrated(evaluation_net, mesh.replicate(devices, variables), arch,
                             normalized(images, config.data, devices))  # fmt: skip
    subnet, sub_variables = extract(space, calibrated, arch)
    batches = evaluation_batches(config, dataset, devices, "test", resolution)
    first = next(batches)
    both = ((net, calibrated, arch), (subnet, sub_variables, None))
    difference = check_equal(*both, first["image"], config.data.normalization, devices)
    every_batch = itertools.chain([first], batches)
    figures = measure_one(subnet, sub_variables, every_batch, config.data.normalization, devices)
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


PUBLISHED = "published:"  # before the name of one of the reference's archs


def read_arch(space: SearchSpace, text: str) -> tuple[Arch, int | None, str]:
    """Reads what `--arch` takes: the arch, its resolution where the JSON names one, and a name.

    Raises:
      ValueError: neither a word, a readable file nor JSON; or an arch outside the space.
    """
    corners = {"largest": space.largest, "smallest": space.smallest}
    if text in corners:
        return corners[text](), None, text
    if text.startswith(PUBLISHED):
        return _published_arch(space, text.removeprefix(PUBLISHED))
    if text.lstrip().startswith("{"):
        try:
            values = parse_json(text)
        except JsonError as error:
            raise InputError(f"--arch={shown(text)} is not JSON: {error}") from error
        arch, resolution = _arch_of(space, values)
        return arch, resolution, _digest(space, arch)
    path = place("--arch", text)
    if not path.exists():
        raise InputError(
            f"--arch={shown(text)}: expected 'largest', 'smallest', 'published:NAME', a JSON object"
            " or a file"
        )
    with naming(path):
        arch, resolution = _arch_of(space, read_json(path))
    return arch, resolution, path.stem if path.stem != "arch" else _digest(space, arch)


def _arch_of(space: SearchSpace, values: Any) -> tuple[Arch, int | None]:
    """The arch of a JSON object and the resolution beside it, None where there is none."""
    arch = space.arch_from_dict(values)
    known = {"resolution", *(d.key for d in space.dimensions.values())}
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(
            f"arch has the unknown key {shown(unknown[0])}: expected {space.keys}, 'resolution'"
        )
    resolution = build(int | None, values.get("resolution"), "arch['resolution']")
    if resolution is not None and not 1 <= resolution <= PIXELS:
        raise InputError(f"arch['resolution']={resolution}: expected 1 to {PIXELS} pixels")
    return arch, resolution


def _digest(space: SearchSpace, arch: Arch) -> str:
    """A name for an arch that has none."""
    canonical = json.dumps(space.arch_to_dict(arch)).encode()
    return f"arch-{hashlib.sha256(canonical).hexdigest()[:8]}"


def _published_arch(space: SearchSpace, name: str) -> tuple[Arch, int, str]:
    """A published arch of the reference, its resolution and its name."""
    known = published()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0) or list(known)[:2]
        raise InputError(f"--arch={PUBLISHED}{name}: no such arch; the nearest: {', '.join(near)}")
    net = known[name]
    free = {key: getattr(space, key) for key in ("num_classes", "dropout", "resolutions")}
    if space != dataclasses.replace(net.space, **free):
        raise InputError(
            f"--arch={PUBLISHED}{name} is of {net.space.name}, the supernet of {space.name}"
        )
    return net.arch, net.resolution, name


def check_equal(
    masked_net: Cut, subnet: Cut, images: np.ndarray, normalization: Normalization, devices: Mesh
) -> float:
    """The largest difference between supernet's and subnet's logits, over the largest logit.

    Args:
      masked_net: the supernet, its calibrated variables and the arch.
      subnet: what was cut out of it, its variables and None.
      images: this process's part of a batch, uint8.
      normalization: of the images.
      devices: the batch is split over them.

    Raises:
      ValueError: it is above `TOLERANCE`.
    """
    split = mesh.shard_batch(devices, images)

    def logits(net: Network, variables: Any, arch: Arch | None) -> np.ndarray:
        computed = logits_of(net, normalization, mesh.replicate(devices, variables), arch, split)
        return np.concatenate([np.asarray(part.data) for part in computed.addressable_shards])

    masked, small = logits(*masked_net), logits(*subnet)
    difference = float(np.abs(masked - small).max() / np.abs(masked).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"the subnet's logits differ from the supernet's by {difference:.1e} of the largest:"
            f" expected at most {TOLERANCE:.0e}"
        )
    return difference


def place_of(workdir: Path, name: str, overwrite: bool) -> Path:
    """The directory of a new subnet of the run, `subnets/<name>`.

    Raises:
      ValueError: a name that is none, or something there already; with `overwrite`, something that
        is no subnet, or holds what does not belong to it.
    """
    directory = workdir / "subnets" / check_name("--name", name)
    if not storage.is_published(directory, CARD):
        return directory
    if not overwrite:
        raise InputError(f"{directory} exists: give another --name, or --overwrite to replace it")
    foreign = foreign_file(directory)
    if foreign:
        raise InputError(
            f"{directory} holds {foreign}, which is not the subnet's: it is not replaced; move it"
            " away, or give another --name"
        )
    return directory


def write_subnet(directory: Path, space: SearchSpace, variables: Any, card: Card) -> None:
    """Writes a subnet's directory, complete or not at all, in the place of what `place_of` saw."""
    directory.parent.mkdir(exist_ok=True)
    with storage.replaced(directory, CARD) as made:
        description = {"space": space_to_dict(space), "arch": card.arch}
        checkpoint.save_network(made / "orbax", variables, description)
        arch = {**card.arch, "resolution": card.resolution}
        write_json(made / "arch.json", arch)
        write_text(made / LABELS, labels(card.classes))
        write_card(made, card)


def extract_all(config: Config, workdir: Path) -> None:
    """Extracts the corners that the config names and the search's winners, unless they exist."""
    for text in (*config.extract.archs, *processes.from_first(lambda: winner_archs(workdir))):
        directory = workdir / "subnets" / Path(text).stem
        if processes.from_first(partial(storage.is_published, directory, CARD)):
            print(f"subnet {directory.name} exists: {directory}")
        else:
            extract_to(config, workdir, text)


@dataclasses.dataclass(frozen=True)
class Winner:
    """What `found.json` holds of a winner that its own file does not."""

    name: str

    def __post_init__(self) -> None:
        check_name("name", self.name)


def winner_archs(workdir: Path) -> list[str]:
    """The arch files of the last search's winners."""
    path = workdir / "search" / "found.json"
    if not path.exists():
        return []
    with naming(path):
        rows = build(tuple[Winner, ...], read_object(path, "found")["found"], "found", strict=False)
    names = [row.name for row in rows]
    return [str(path.with_name(f"{name}.json")) for name in names]


def middle_winner(workdir: Path) -> str:
    """The name of the last search's winner that is in the middle by cost."""
    names = [Path(path).stem for path in winner_archs(workdir)]
    if not names:
        path = workdir / "search" / "found.json"
        raise InputError(f"{path} has no subnets: --mode=search finds some")
    return names[len(names) // 2]
