"""The configuration of a run: frozen dataclasses, checked once at start.

Files in `configs/` give an `ml_collections.ConfigDict`, so that `--config.x.y=value` overrides any
field; `from_dict` turns it into a `Config`, and nothing deeper ever asks a dict.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from ofa_jax.plain import build
from ofa_jax.space import Number, SearchSpace, Stage
from ofa_jax.spaces import get_space
from ofa_jax.train.losses import DISTILLATIONS
from ofa_jax.train.phases import Phase, check_curriculum

FORMATS = ("stablehlo", "onnx", "onnx-int8", "tflite")  # what a subnet can be exported to


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}={value!r}: expected one of {', '.join(allowed) or 'none'}")


@dataclasses.dataclass(frozen=True)
class SpaceConfig:
    """Which search space: an id of `list_spaces()`, and what to replace in it.

    The fields are those of the named space; 0 or () keeps its own value. `num_classes` 0 takes the
    dataset's.
    """

    name: str = "ofa_tiny_d123_e346_k357"
    num_classes: int = 0
    dropout: float = 0.1
    stem: int = 0
    stem_stride: int = 0
    first: int = 0
    stages: tuple[Stage, ...] = ()
    head: int = 0
    features: int = 0
    kernels: tuple[int, ...] = ()
    expands: tuple[Number, ...] = ()
    depths: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How a training image is varied.

    `crop` "resized" takes a random box of `area` (shares of the image) and `aspect` (width over
    height) and resizes it; "pad", for small images, pads the resized image by `pad` of its size
    and crops it back. Then a mirror image with probability `flip`, and brightness and saturation
    by up to these shares. The reference: resized, flip 0.5, brightness 32 / 255, saturation 0.5.
    """

    crop: str = "pad"
    area: tuple[float, ...] = (0.08, 1.0)
    aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    pad: float = 0.125
    flip: float = 0.0
    brightness: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        _one_of("crop", self.crop, ("resized", "pad"))
        if not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise ValueError(f"area={self.area}: expected two shares of the image, from 0 to 1")
        if not (len(self.aspect) == 2 and 0 < self.aspect[0] <= self.aspect[1]):
            raise ValueError(f"aspect={self.aspect}: expected two ratios, width over height")
        for field in ("pad", "flip", "brightness", "saturation"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field}={getattr(self, field)}: expected 0 to 1")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how they reach the device.

    `name` is "digits", a dataset of tfds ("cifar10", "imagenette/160px-v2") or a folder: a
    prepared tfds dataset's own, or one with a folder of images for each class. `data_dir` is where
    tfds keeps its datasets ("": its default). Split names may be slices, as "train[:10%]"; ""
    finds the split: "test", else "validation", to test, a validation split beside it or
    `held_out` training images to hold out. `corrupt` images "stop" the run or are passed over
    and counted ("skip").

    `batch_size` images a step over all devices; one of `resolutions` (pixels) is drawn for every
    batch; evaluation resizes the shorter side to resolution / `center_crop` and takes the centre;
    pixels in [0, 1] are normalised by `mean` and `std`. `workers` processes (0: this one) with
    `threads` threads each make batches, up to `prefetch` of them ahead.
    """

    name: str = "digits"
    data_dir: str = ""
    train_split: str = "train"
    test_split: str = ""
    held_out_split: str = ""
    held_out: int = 180
    image_key: str = "image"
    label_key: str = "label"
    corrupt: str = "stop"
    batch_size: int = 64
    resolutions: tuple[int, ...] = (16,)
    augment: AugmentConfig = AugmentConfig()
    center_crop: float = 1.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _one_of("corrupt", self.corrupt, ("stop", "skip"))
        if not 0 < self.center_crop <= 1:
            raise ValueError(f"center_crop={self.center_crop}: expected above 0, at most 1")
        if self.workers < 0:
            raise ValueError(f"workers={self.workers}: expected at least 0")
        if self.size and (len(self.size) != 2 or self.size[0] < 1 or self.size[1] < 2):
            raise ValueError(f"size={self.size}: expected (training images, classes), or nothing")
        for field in ("mean", "std"):
            if len(getattr(self, field)) != 3:
                raise ValueError(f"{field}={getattr(self, field)}: expected 3 numbers")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The optimiser and the labels' smoothing (the reference's values), and checkpoints.

    Nets compute in `dtype`, "float32" or "bfloat16"; parameters, optimiser, statistics and losses
    are float32 in both. With an `ema` above 0, such as 0.9998, a phase leaves the moving average
    of its parameters: that is validated, goes on to the next phase, teaches and is saved.

    A subnet's blocks are computed as `compute` says: "masks" (each at its largest), "branches"
    (each as it is drawn) or "auto", by the backend (`models.best_compute`); also in evaluation.

    A checkpoint is written every `checkpoint_steps` steps and at the end of each phase; the
    newest `checkpoint_keep` of a phase are kept.
    """

    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    dtype: str = "float32"
    compute: str = "auto"
    ema: float = 0.0
    checkpoint_steps: int = 500
    checkpoint_keep: int = 2

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, ("float32", "bfloat16"))
        _one_of("compute", self.compute, ("auto", "masks", "branches"))
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema}: expected at least 0, below 1")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How a step is spread over devices and processes.

    So many `devices` (0: all there are) each take an equal part of every batch, in `micro_steps`
    parts one after the other where it does not fit at once. Gradients are averaged over all these
    parts and summed over the subnets of each. `subnets` "own" draws others for each part; "same"
    draws one set for all, as the reference does. Batch `statistics` are of the part's "own" images,
    as in the reference, or "global", of all devices' images in the same micro-step. 4 devices and
    2 with twice the micro-steps train the same, but for rounding.

    `shard_optimizer` spreads the momentum over the devices instead of copying it. A run of several
    processes ends when one of its steps takes longer than `timeout` seconds.
    """

    devices: int = 0
    micro_steps: int = 1
    subnets: str = "own"
    statistics: str = "own"
    shard_optimizer: bool = False
    timeout: float = 600.0

    def __post_init__(self) -> None:
        _one_of("subnets", self.subnets, ("own", "same"))
        _one_of("statistics", self.statistics, ("own", "global"))
        if self.statistics == "global" and self.subnets == "own":
            raise ValueError(
                "statistics='global' needs subnets='same': channels of different subnets have no"
                " statistics in common"
            )
        for field, least in (("devices", 0), ("micro_steps", 1), ("timeout", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field}={getattr(self, field)}: expected at least {least}")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """What subnets learn from: `loss` "soft", "mse" or "alpha"; `source` "teacher" or "largest".

    "teacher" is the frozen largest net of the first phase, "largest" the step's own largest net.
    """

    loss: str = "soft"
    source: str = "teacher"


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """The validation grid, and batch-norm calibration: `calibration_images` in batches.

    `resolutions` in pixels; () takes the smallest and the largest of `data.resolutions`.
    """

    split: str = "test"
    resolutions: tuple[int, ...] = ()
    batch_size: int = 200
    calibration_images: int = 2000
    calibration_batch_size: int = 200


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Which subnets to look for, and by what.

    A predictor learns from so many measured `archs` on the held-out split, at `resolutions` (();
    `data.resolutions`). It is not trusted below a Kendall tau of `least_tau` on archs it has not
    seen; -1 trusts any. `cost` is "macs", "params", "memory" (bytes of activations) or "latency"
    (milliseconds): by `latency_table`, a file or a directory of the reference's, or by one of this
    machine, measured in `latency_batch` images.

    The best subnet within each of the `constraints` is searched for; () searches the whole front
    and takes so many `winners` of it, evenly spaced in cost. Winners are measured, and the middle
    one is compared with so many `random_archs` of its cost. `population` and `generations` are
    those of the evolution; population 0 takes the search's own.
    """

    archs: int = 300
    resolutions: tuple[int, ...] = ()
    cost: str = "macs"
    latency_table: str = ""
    latency_batch: int = 1
    constraints: tuple[float, ...] = ()
    winners: int = 3
    random_archs: int = 20
    population: int = 0
    generations: int = 500
    least_tau: float = 0.3

    def __post_init__(self) -> None:
        _one_of("cost", self.cost, ("macs", "params", "memory", "latency"))
        least = {"archs": 20, "latency_batch": 1, "winners": 1, "random_archs": 0, "population": 0,
                 "generations": 1}  # fmt: skip
        for field, minimum in least.items():
            if getattr(self, field) < minimum:
                raise ValueError(f"{field}={getattr(self, field)}: expected at least {minimum}")
        if min(self.resolutions, default=1) < 1:
            raise ValueError(f"resolutions={self.resolutions}: expected pixels")
        if any(c <= 0 for c in self.constraints):
            raise ValueError(f"constraints={self.constraints}: expected positive costs")
        if not -1 <= self.least_tau <= 1:
            raise ValueError(f"least_tau={self.least_tau}: expected -1 to 1")


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """The subnets that `--mode=all` extracts: names of corners of the space."""

    archs: tuple[str, ...] = ("smallest", "largest")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A subnet trained further by itself, from the supernet's weights, at its own resolution.

    `epochs` passes over the training images, as the reference's published nets had 25 or 75, at
    `lr` with a cosine to 0; the reference states no other value. `distill` weighs what it learns
    from the run's teacher beside the labels; 0 needs none. `--mode=all` fine-tunes the search's
    middle winner, unless `epochs` is 0.
    """

    epochs: float = 25.0
    warmup_epochs: float = 0.0
    lr: float = 0.01
    distill: float = 1.0

    def __post_init__(self) -> None:
        for field in ("epochs", "warmup_epochs", "lr", "distill"):
            value = getattr(self, field)
            if not 0 <= value < math.inf:
                raise ValueError(f"{field}={value}: expected a number of at least 0")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The files that `--mode=all` makes of the search's middle winner: "stablehlo", "onnx", ..."""

    formats: tuple[str, ...] = ("stablehlo",)

    def __post_init__(self) -> None:
        for name in self.formats:
            _one_of("formats", name, FORMATS)


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. `curriculum` orders the names of `phases`; every random number follows `seed`."""

    seed: int = 0
    space: SpaceConfig = SpaceConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    distill: DistillConfig = DistillConfig()
    curriculum: tuple[str, ...] = ()
    phases: dict[str, Phase] = dataclasses.field(default_factory=dict, hash=False)
    evaluate: EvaluateConfig = EvaluateConfig()
    search: SearchConfig = SearchConfig()
    extract: ExtractConfig = ExtractConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    export: ExportConfig = ExportConfig()

    def __post_init__(self) -> None:
        _one_of("distill.loss", self.distill.loss, tuple(DISTILLATIONS))
        _one_of("distill.source", self.distill.source, ("teacher", "largest"))
        _one_of("evaluate.split", self.evaluate.split, ("test", "held_out"))
        for name in self.extract.archs:
            _one_of("extract.archs", name, ("smallest", "largest"))
        for name in self.curriculum:
            _one_of("curriculum", name, tuple(self.phases))
        if len(set(self.curriculum)) != len(self.curriculum):
            raise ValueError(f"curriculum={self.curriculum}: a phase is named twice")
        for field in ("data.batch_size", "data.threads", "data.prefetch",
                      "train.checkpoint_steps", "train.checkpoint_keep", "evaluate.batch_size",
                      "evaluate.calibration_images",
                      "evaluate.calibration_batch_size"):  # fmt: skip
            section, key = field.split(".")
            value = getattr(getattr(self, section), key)
            if value < 1:
                raise ValueError(f"{field}={value}: expected at least 1")
        if not self.data.resolutions or min(self.data.resolutions) < 1:
            raise ValueError(f"data.resolutions={self.data.resolutions}: expected pixels")
        if min(self.evaluate.resolutions, default=1) < 1:
            raise ValueError(f"evaluate.resolutions={self.evaluate.resolutions}: expected pixels")
        space = self.search_space(self.space.num_classes or 2)
        check_curriculum(space, self.ordered_phases(), self.distill.source)

    def search_space(self, num_classes: int) -> SearchSpace:
        """The run's search space, for so many classes.

        Raises:
          ValueError: the config says another number.
        """
        given = {f.name: getattr(self.space, f.name) for f in dataclasses.fields(self.space)}
        asked = given.pop("num_classes")
        if asked not in (0, num_classes):
            raise ValueError(
                f"space.num_classes={asked}: {self.data.name} has {num_classes} classes"
                " (0 takes the dataset's)"
            )
        replaced = {name: value for name, value in given.items() if value or name == "dropout"}
        return get_space(**replaced, num_classes=num_classes)

    def ordered_phases(self) -> list[tuple[str, Phase]]:
        """The phases by name, in the order of the curriculum."""
        return [(name, self.phases[name]) for name in self.curriculum]


def defaults(**sections: Any) -> ml_collections.ConfigDict:
    """A `ConfigDict` with every field of `Config`, and `sections` replacing what they name.

    Raises:
      ValueError: an unknown field or a wrong type, by its full name.
    """
    return ml_collections.ConfigDict(to_dict(from_dict(sections)))


def to_dict(config: Config) -> dict[str, Any]:
    """Plain data, as `config.json` holds it."""
    return dataclasses.asdict(config)


def from_dict(data: Mapping[str, Any]) -> Config:
    """Checks plain data and freezes it.

    Raises:
      ValueError: an unknown field, a wrong type or a value outside the allowed ones, by name.
    """
    return build(Config, data)
