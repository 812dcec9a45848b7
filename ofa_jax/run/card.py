"""A subnet's card: what it is, what it scores and costs, how its images are made, where it is from.

`card.json` is for programs, the `README.md` beside it for people; both say the same. The card holds
the checksum of every other file of the directory.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_jax.checkpoint import checksum
from ofa_jax.errors import InputError
from ofa_jax.files import naming, read_json, read_text, shown
from ofa_jax.names import check_classes, check_inside, check_name, place
from ofa_jax.normalization import check_normalization
from ofa_jax.plain import build
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.run.groups.subnets import FORMATS
from ofa_jax.space import PIXELS
from ofa_jax.storage import TEMPORARY, as_path, below, is_link

CARD, README = "card.json", "README.md"
LABELS = "labels.txt"  # the classes in the order of the logits, a line each
# What systems leave in any directory, and a killed export in this one.
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what the net takes: resize, crop the centre, scale, normalise.

    The shorter side is resized to `resize_shorter_side` pixels, the centre `resolution` pixels
    wide is kept (`center_crop` is their ratio), and pixels become (pixel / 255 - mean) / std.
    """

    resize_shorter_side: int
    center_crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear, antialiased (Pillow)"
    channels: str = "RGB"

    def __post_init__(self) -> None:
        if not 1 <= self.resize_shorter_side <= 100 * PIXELS or not 0.01 <= self.center_crop <= 1:
            raise InputError(
                f"resize_shorter_side={self.resize_shorter_side}, center_crop={self.center_crop}:"
                " expected pixels, and 0.01 to 1"
            )
        check_normalization(self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported file. `difference` is the largest from the subnet's logits, of the largest logit.

    `accuracy` on test and `snr_db`, the logits' signal over their noise in decibels, exist
    where the file has less precision than float32; `batch` where it takes one number of images;
    `runtime` says which runtimes or releases load the file, where not all of them do; `in_float`
    is the number of layers at the start of an int8 file that stay in float32.
    """

    file: str
    bytes: int
    input: str
    difference: float
    accuracy: dict[str, float] = dataclasses.field(default_factory=dict)
    snr_db: float | None = None
    batch: int | None = None
    runtime: str = ""
    in_float: int = 0

    def __post_init__(self) -> None:
        check_name("file", self.file)
        if self.accuracy or self.snr_db is not None:
            check_figures("accuracy", self.accuracy)
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch={self.batch}: expected at least 1")
        if self.in_float < 0:
            raise InputError(f"in_float={self.in_float}: expected at least 0")


@dataclasses.dataclass(frozen=True)
class Tuned:
    """How a subnet was fine-tuned: from which one, by what, and its figures by split."""

    source: str
    epochs: float
    before: dict[str, dict[str, float]]
    after: dict[str, dict[str, float]]

    def __post_init__(self) -> None:
        for when in (self.before, self.after):
            if "held_out" not in when:
                raise InputError("before, after: expected figures of held_out")
            for split, figures in when.items():
                check_figures(shown(split), figures)


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds a call of one runtime takes on one machine: median and 90th percentile."""

    runtime: str
    batch: int
    threads: int
    median_ms: float
    p90_ms: float


@dataclasses.dataclass(frozen=True)
class Card:
    """Everything about a subnet but its weights.

    Attributes:
      name: of the subnet.
      space: the name of its search space.
      arch: its arch as the reference writes it, "ks", "e", "d" (and "w").
      resolution: pixels it is calibrated and measured at.
      classes: names, in the order of the logits.
      preprocessing: of its images.
      macs: multiply-accumulates for one image.
      params: parameters, all of them.
      accuracy: of each split measured, "top1" (share) and "loss" (nats).
      calibration_images: how many its batch statistics were taken from.
      largest_difference_from_supernet: of the logits, as a share of the largest.
      source: the run, dataset and seed it comes from.
      created: when, UTC.
      finetuned: where it was: "from" (subnet), "epochs", "lr", "distill", "before" and "after".
      exports: files by format.
      latency: by runtime, on `machine`.
      machine: where latency was measured: processor, threads, device, versions.
      files: SHA-256 of every other file, by its path in the directory.
      schema: version of these fields.
    """

    name: str
    space: str
    arch: dict[str, Any]
    resolution: int
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    macs: int
    params: int
    accuracy: dict[str, dict[str, float]]
    calibration_images: int
    largest_difference_from_supernet: float
    source: dict[str, Any]
    created: str
    finetuned: dict[str, Any] = dataclasses.field(default_factory=dict)
    exports: dict[str, Export] = dataclasses.field(default_factory=dict)
    latency: tuple[Latency, ...] = ()
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    schema: int = 1

    def __post_init__(self) -> None:
        if self.schema != 1:
            raise InputError(f"schema={self.schema}: expected 1; a newer ofa_jax wrote this card")
        check_name("name", self.name)
        check_classes(self.classes)
        if not 1 <= self.resolution <= PIXELS:
            raise InputError(f"resolution={self.resolution}: expected 1 to {PIXELS} pixels")
        for split, figures in self.accuracy.items():
            check_figures(f"accuracy.{shown(split)}", figures)
        for kind in self.exports:
            if kind not in FORMATS:
                raise InputError(f"exports: {shown(kind)}: expected {', '.join(FORMATS)}")
        if self.finetuned:
            build(Tuned, {**self.finetuned, "source": self.finetuned.get("from")}, "finetuned",
                  strict=False)  # fmt: skip
        for file in self.files:
            check_inside("files", file)


def check_figures(field: str, figures: Mapping[str, float]) -> None:
    """Raises `ValueError` unless there is a top-1 among a split's figures."""
    if not 0 <= figures.get("top1", -1.0) <= 1:
        raise InputError(f"{field}.top1={figures.get('top1')}: expected 0 to 1")


def find_subnet(workdir: Path, text: str) -> Path:
    """The directory of a subnet, by its name in `workdir` or by its own path.

    Raises:
      ValueError: there is none; names those that exist.
    """
    path = place("--subnet", text)
    for directory in (as_path(workdir / "subnets" / path), path):
        if text and (directory / CARD).is_file():
            return directory
    names = sorted(path.parent.name for path in (workdir / "subnets").glob(f"*/{CARD}"))
    there = ", ".join(names) or "none yet, --mode=extract makes one"
    if not workdir.is_dir():
        there = f"{workdir} does not exist"
    raise InputError(
        f"--subnet={shown(text)}: expected a subnet's directory, or a name in"
        f" {workdir / 'subnets'}: {there}"
    )


def read_card(directory: Path) -> Card:
    """The card of a subnet's directory, every file of which is as it was written.

    Raises:
      ValueError: no card, a broken one, a missing or an altered file, by name.
    """
    path = directory / CARD
    if not path.is_file():
        raise InputError(f"{directory} is no subnet: it has no {CARD}")
    with naming(path):
        card = build(Card, read_json(path))
    for made in card.exports.values():
        if made.file not in card.files:
            raise InputError(f"{path}: {made.file} has no checksum in files")
    for name, expected in card.files.items():
        if not (directory / name).is_file():
            raise InputError(f"subnet {directory}: its file {name} is missing")
        if checksum(directory / name) != expected:
            raise InputError(f"subnet {directory}: its file {name} is altered or truncated")
    if LABELS in card.files and read_text(directory / LABELS) != labels(card.classes):
        raise InputError(f"{path}: classes are not those of {LABELS}, in their order")
    return card


def labels(classes: Sequence[str]) -> str:
    """What `labels.txt` holds."""
    return "".join(f"{name}\n" for name in classes)


def check_images(directory: Path, card: Card, data: DataConfig, class_names: Sequence[str]) -> None:
    """Raises `ValueError` unless a subnet has a dataset's classes, in its order, and its images.

    Args:
      directory: the subnet's.
      card: its card.
      data: how images are normalised.
      class_names: of the dataset.
    """
    if len(card.classes) != len(class_names):
        raise InputError(
            f"subnet {directory} has {len(card.classes)} classes, {data.name} {len(class_names)}"
        )
    for theirs, ours in zip(card.classes, class_names, strict=True):
        if theirs != ours:
            raise InputError(
                f"subnet {directory} has the class {theirs!r} where {data.name} has {ours!r}"
            )
    for field in ("mean", "std"):
        its, own = getattr(card.preprocessing, field), getattr(data, field)
        if its != own:
            raise InputError(
                f"subnet {directory} is for images of {field}={its}, data.{field}={own}"
            )


def foreign_file(directory: Path) -> str:
    """Something in a directory that is not of a subnet's, by its card; "" where there is nothing.

    Files that systems leave in any directory count as nothing.
    """
    if is_link(directory) or not directory.is_dir():
        return "no directory"
    try:
        card = build(Card, read_json(directory / CARD))
    except InputError:
        return f"no readable {CARD}"
    own = {CARD, README, *card.files}
    for path in below(directory):
        name = str(path.relative_to(directory))
        litter = path.name in LITTER or path.name.startswith(TEMPORARY)
        if not (name in own or litter):
            return name
    return ""
