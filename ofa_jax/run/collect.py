"""What the accuracy predictor learns from: many random subnets, each calibrated and measured."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ofa_jax.errors import InputError
from ofa_jax.files import parse_json, read_text, write_text, writing
from ofa_jax.network import Network
from ofa_jax.plain import build
from ofa_jax.run import processes
from ofa_jax.run.config import Config
from ofa_jax.run.costs import search_resolutions
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.evaluate import (
    calibration_images,
    evaluation_batches,
    normalized,
)
from ofa_jax.run.metrics import track
from ofa_jax.space import Arch, SearchSpace, stack
from ofa_jax.storage import appending
from ofa_jax.subnets.calibrate import GROUP, calibrate_each, group
from ofa_jax.subnets.evaluate import measure

Tree = Any


class Measured(NamedTuple):
    """Subnets and what they reached: stacked archs, `[n]` pixels, `[n]` top-1 in [0, 1]."""

    archs: Arch
    resolutions: np.ndarray
    top1: np.ndarray


def collect(
    net: Network, variables: Tree, config: Config, dataset: Dataset, devices: Mesh, path: Path
) -> Measured:
    """Measures `config.search.archs` random subnets on the held-out split, each calibrated.

    They are spread evenly over the resolutions; the smallest and the largest net are among them.
    Every group is appended to `path` as it is done, so that an interrupted run continues there.
    """
    sizes = search_resolutions(config)
    measured = processes.from_first(lambda: read_measured(path, net.space, sizes))
    count = config.search.archs
    missing = [i for i in range(count) if str(i) not in measured]
    if len(missing) < count and missing:
        print(f"{count - len(missing)} subnets were measured before: {path}")
    chunks = list(_chunks(missing, len(sizes)))
    images: dict[int, tuple[Any, Any]] = {}
    for chunk in track(chunks, len(chunks), f"measuring {len(missing)} subnets"):
        size = sizes[chunk[0] % len(sizes)]
        if size not in images:  # read once for all subnets of a resolution
            images = {size: read_images(config, dataset, devices, size)}
        archs = [sampled_arch(net.space, config.seed, i, len(sizes)) for i in chunk]
        figures = measure_archs(net, variables, archs, config, images[size], devices)
        rows: list[dict[str, Any]] = [
            {"index": i, "arch": net.space.arch_to_dict(arch), "resolution": size, **figure}
            for i, arch, figure in zip(chunk, archs, figures, strict=True)
        ]
        processes.from_first(lambda rows=rows: _append(path, rows))  # type: ignore[misc]
        measured.update({str(row["index"]): row for row in rows})
    rows = [measured[str(i)] for i in range(count)]
    archs = [net.space.arch_from_dict(row["arch"]) for row in rows]
    return Measured(stack(archs), *(np.asarray([row[k] for row in rows])
                                    for k in ("resolution", "top1")))  # fmt: skip


def sampled_arch(space: SearchSpace, seed: int, index: int, resolutions: int) -> Arch:
    """The subnet of this index: first the ends of the space at each resolution, then any."""
    if index < 2 * resolutions:
        return space.smallest() if index < resolutions else space.largest()
    return space.sample(jax.random.fold_in(jax.random.key(seed), index))


def _chunks(missing: list[int], resolutions: int) -> Iterator[list[int]]:
    """The indices in chunks of one resolution each, those of a resolution one after the other."""
    for position in range(resolutions):
        own = [i for i in missing if i % resolutions == position]
        for start in range(0, len(own), GROUP):
            yield own[start : start + GROUP]


def read_images(config: Config, dataset: Dataset, devices: Mesh, size: int) -> tuple[Any, Any]:
    """What subnets are calibrated on and measured with at one resolution, for `measure_archs`."""
    calibration = calibration_images(config, dataset, devices, size)
    return calibration, list(evaluation_batches(config, dataset, devices, "held_out", size))


def measure_archs(
    net: Network,
    variables: Tree,
    archs: Sequence[Arch],
    config: Config,
    images: tuple[Any, Any],
    devices: Mesh,
) -> list[dict[str, float]]:
    """{"top1", "loss"} of each arch, calibrated, on the images of `read_images`."""
    calibration, batches = images
    figures = []
    for start in range(0, len(archs), GROUP):
        own = group(archs[start : start + GROUP])
        batched = normalized(calibration, config.data, devices)
        stats = calibrate_each(net, variables, own, batched)
        figures += measure(
            net, variables["params"], stats, own, batches, config.data.normalization, devices
        )
    return figures


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of `measured.jsonl`."""

    index: int
    arch: dict[str, Any]
    resolution: int
    top1: float
    loss: float

    def __post_init__(self) -> None:
        if not (self.index >= 0 and self.resolution >= 1 and 0 <= self.top1 <= 1):
            raise InputError(f"{self}: expected an index, pixels and a share")


def read_measured(path: Path, space: SearchSpace, sizes: tuple[int, ...]) -> dict[str, Any]:
    """The rows by index, of those at the resolution that the index has among `sizes`.

    What is no row, such as one of another version, is left alone, but for the half line of a killed
    run; a search at other resolutions keeps its rows.
    """
    if not path.exists():
        return {}
    *lines, last = read_text(path).split("\n")
    rows = [row for line in (*lines, last) if (row := _row(line, space))]
    if last:
        write_text(path, "".join(f"{line}\n" for line in lines + [last] * bool(_row(last, space))))
    return {
        str(row["index"]): row
        for row in rows
        if row["resolution"] == sizes[row["index"] % len(sizes)]
    }


def _row(line: str, space: SearchSpace) -> dict[str, Any] | None:
    try:
        row = build(_Row, parse_json(line))
        space.arch_from_dict(row.arch)
    except InputError:
        return None
    return dataclasses.asdict(row)


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    with writing(path), appending(path) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
