"""The configuration of a run: frozen dataclasses, checked once at start.

Files in `configs/` give an `ml_collections.ConfigDict`, so that `--config.x.y=value` overrides any
field; `from_dict` turns it into a `Config`, and nothing deeper ever reads a dict.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from ofa_jax.errors import InputError
from ofa_jax.families import get_space
from ofa_jax.files import shown
from ofa_jax.normalization import MEAN, STD, Normalization, check_normalization
from ofa_jax.plain import build, hints
from ofa_jax.space import PIXELS, Number, SearchSpace, Stage
from ofa_jax.train.losses import DISTILLATIONS
from ofa_jax.train.phases import HIGHEST, LONGEST, SOURCES, Phase, check_curriculum

# What a subnet can be exported to.
FORMATS = (
    "stablehlo", "onnx", "onnx-fp16", "onnx-int8", "tflite", "tflite-fp16", "tflite-int8",
)  # fmt: skip


LARGEST = 2**31 - 1  # what an int32 on the device holds
# Random subnets, of which those nearest in cost to a winner are compared with it.
RANDOM_POOL = 4096


def _between(section: Any, low: float, high: float, *fields: str) -> None:
    """Raises `ValueError` unless all of these fields are within both limits."""
    for field in fields:
        if not low <= getattr(section, field) <= high:
            limits = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"{field}={getattr(section, field)}: expected {limits}")


def _pixels(field: str, resolutions: tuple[int, ...]) -> None:
    """Raises `ValueError` unless all of these are sizes of images."""
    if not all(1 <= size <= PIXELS for size in resolutions):
        raise InputError(f"{field}={shown(resolutions)}: expected pixels, 1 to {PIXELS}")


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{field}={value!r}: expected one of {', '.join(allowed) or 'none'}")


@dataclasses.dataclass(frozen=True)
class SpaceConfig:
    """Which search space, and what to replace in it.

    None or () keeps what the named space has. Four of the spaces are the reference's.

    Attributes:
      name: the space's id, one of `ofa_jax.list_spaces()`.
      num_classes: classes; 0 takes the dataset's.
      dropout: share of the classifier's inputs that training drops; 0.1 in the spaces of inverted
        residuals, 0 in the ResNet. Source: the reference.
      stem: output channels of the stem; of a ResNet, at width multiplier 1.
      stem_stride: stride of the stem's convolution; not of a ResNet.
      first: output channels of the one fixed block after the stem; not of a ResNet.
      stages: the elastic stages, each with `width` (output channels), `stride`, `act` ("relu",
        "relu6", "h_swish"), `se` (squeeze-and-excitation), `depth` (blocks that are always there)
        and `elastic` (whether it has more of them).
      head: output channels of the last convolution; not of a ResNet.
      features: channels of the layer before the classifier; not of a ResNet.
      kernels: kernel sizes to choose from, odd and ascending, in pixels.
      expands: expand ratios to choose from, ascending: a block's middle channels over its input
        channels; in a ResNet, over its output channels.
      depths: numbers of blocks to choose from, ascending, added to the stage's own `depth`.
      widths: width multipliers of a stage's output to choose from, ascending; only of a ResNet.
    """

    name: str = "ofa_tiny_d123_e346_k357"
    num_classes: int = 0
    dropout: float | None = None
    stem: int | None = None
    stem_stride: int | None = None
    first: int | None = None
    stages: tuple[Stage, ...] = ()
    head: int | None = None
    features: int | None = None
    kernels: tuple[int, ...] = ()
    expands: tuple[Number, ...] = ()
    depths: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How a training image is varied: a crop, a mirror image, its colours, parts of others.

    Attributes:
      crop: "resized" takes a random box of the image and resizes it; "pad", for small images, adds
        a black border to the resized image and crops it back. Source: ours; the reference has
        "resized".
      area: least and largest share of the image that a "resized" box has. Source: the reference.
      aspect: least and largest width over height of a "resized" box. Source: the reference.
      pad: border of "pad" on every side, as a share of the image's size.
      flip: probability of a mirror image. Source: ours; the reference has 0.5.
      brightness: b scales brightness by a factor from 1 - b to 1 + b. Source: ours; the reference
        has 32 / 255.
      saturation: s scales saturation by a factor from 1 - s to 1 + s. Source: ours; the reference
        has 0.5.
      policy: "trivial" applies one random operation of random strength to each image
        (TrivialAugment, arXiv 2103.10158); "" none. Source: the reference has none.
      erase: probability that a random box, of 2 to 33 % of the image, becomes noise (random
        erasing, arXiv 1708.04896). Source: the reference has none.
      mixup: images and labels of a batch are mixed by a share from Beta(mixup, mixup) (arXiv
        1710.09412); 0 mixes none. Source: the reference has none.
      cutmix: a box of another image of the batch replaces an area from Beta(cutmix, cutmix) (arXiv
        1905.04899); 0 none; with `mixup`, each has half of the batches. Source: the reference has
        none.
    """

    crop: str = "pad"
    area: tuple[float, ...] = (0.08, 1.0)
    aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    pad: float = 0.125
    flip: float = 0.0
    brightness: float = 0.0
    saturation: float = 0.0
    policy: str = ""
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _one_of("crop", self.crop, ("resized", "pad"))
        if self.policy not in ("", "trivial"):
            raise InputError(f"policy={self.policy!r}: expected 'trivial', or '' for none")
        if not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise InputError(f"area={self.area}: expected two shares of the image, from 0 to 1")
        if not (len(self.aspect) == 2 and 0.01 <= self.aspect[0] <= self.aspect[1] <= 100):
            raise InputError(f"aspect={self.aspect}: expected two ratios, width over height")
        _between(self, 0, 100, "mixup", "cutmix")
        _between(self, 0, 1, "pad", "flip", "brightness", "saturation", "erase")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how they reach the device.

    Names of splits may be slices, as "train[:10%]", where the dataset is one of tfds.

    Attributes:
      name: "digits", a dataset of tfds ("cifar10", "imagenette/160px-v2") or a folder: a prepared
        tfds dataset's own, or one with a folder of images for each class.
      data_dir: the folder where tfds keeps its datasets; "" takes the default of tfds.
      train_split: the split to train on.
      test_split: the split to test on; "" takes "test", else a validation split ("validation",
        "val" or "valid"), else `held_out` training images; "none" takes these in any case.
      held_out_split: the split that choices are made on; "" takes a validation split beside the
        one to test on, else `held_out` training images; "none" takes these in any case.
      held_out: training images to hold out for each of these splits that the dataset lacks.
        Source: ours; the reference holds out 10,000 of ImageNet's.
      image_key: a tfds dataset's name for the image.
      label_key: a tfds dataset's name for the class.
      corrupt: a corrupt image ends the run ("stop"), or is skipped and counted ("skip").
      batch_size: images a step, over all devices. Source: the reference's 64 of each worker.
      resolutions: input resolutions in pixels; one is sampled per batch. Source: ours;
        the reference draws from 128, 132, ... 224.
      augment: how a training image is varied.
      center_crop: evaluation resizes the shorter side to resolution / `center_crop` and takes the
        centre. Source: ours, the whole image; the reference has 0.875.
      mean: of red, green and blue, subtracted from pixels in [0, 1]. Source: the reference.
      std: of red, green and blue, by which these are then divided. Source: the reference.
      workers: processes that make batches; 0 makes them in the run's own. Source: ours; the
        reference has 8 for each of its workers.
      threads: threads of each of these processes.
      prefetch: batches that each of these processes makes ahead.
      size: (training images, classes), which `--mode=profile` takes instead of looking; () looks.
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
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _one_of("corrupt", self.corrupt, ("stop", "skip"))
        _between(self, 0.01, 1, "center_crop")
        _between(self, 0, math.inf, "held_out")
        _between(self, 0, 1000, "workers")
        _between(self, 1, 1000, "threads", "prefetch")
        if self.size and (len(self.size) != 2 or self.size[0] < 1 or self.size[1] < 2):
            raise InputError(f"size={self.size}: expected (training images, classes), or nothing")
        check_normalization(self.mean, self.std)

    @property
    def normalization(self) -> Normalization:
        """How pixels are normalised."""
        return Normalization(self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The optimiser and its schedule, how nets compute, and checkpoints.

    Attributes:
      optimizer: "sgd" (with Nesterov momentum) or "adamw". Source: the reference has "sgd".
      schedule: a cosine takes the learning rate to 0 in each "phase", or once in the "run", evenly
        by steps, or by subnet "passes", so that steps of many subnets take it further; in these two
        only the first phase may warm up. Source: the reference has "phase".
      momentum: momentum of SGD (Nesterov); for AdamW, its first beta. Source:
        the reference.
      weight_decay: share of the weights that is added to the gradient, before the momentum, or
        after it by AdamW; batch norms and biases have none. Source: the reference.
      clip: largest norm of a step's gradient, summed over its subnets; 0 is none. Source: ours; the
        reference has none.
      label_smoothing: share of a label that is spread over all classes. Source: the reference.
      dtype: what nets compute in, "float32" or "bfloat16"; parameters, optimiser, statistics and
        losses are float32 in both.
      compute: a subnet's blocks are computed each at its largest ("masks"), at its sampled size
        ("branches"), or as suits the backend ("auto": branches on CPU, else masks); also in
        evaluation.
      ema: share of itself that a moving average of the parameters keeps at each step, such as
        0.9998. A phase then leaves that average: it is validated, goes on to the next phase,
        teaches and is saved. 0 takes no average.
      log_every: steps from one that is logged to the next; each phase's last one is, too. All are
        fetched from the devices then, and their figures must be finite.
      checkpoint_steps: steps from one checkpoint to the next; each phase's end has one too.
      checkpoint_keep: how many checkpoints of each phase are kept, the newest.
    """

    optimizer: str = "sgd"
    schedule: str = "phase"
    momentum: float = 0.9
    weight_decay: float = 3e-5
    clip: float = 0.0
    label_smoothing: float = 0.1
    dtype: str = "float32"
    compute: str = "auto"
    ema: float = 0.0
    log_every: int = 10
    checkpoint_steps: int = 500
    checkpoint_keep: int = 2

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, ("float32", "bfloat16"))
        _one_of("compute", self.compute, ("auto", "masks", "branches"))
        _one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        _one_of("schedule", self.schedule, ("phase", "run", "passes"))
        _between(self, 0, math.inf, "clip")
        _between(self, 0, 1, "label_smoothing", "weight_decay")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum}: expected at least 0, below 1")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema={self.ema}: expected at least 0, below 1")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How a step is spread over devices and processes.

    Each device takes an equal part of every batch, or as many parts as it has micro-steps.
    Gradients are averaged over all parts and summed over the subnets of each. 4 devices, and 2 with
    twice the micro-steps, train the same, but for rounding.

    Attributes:
      devices: how many to use; 0 takes all there are.
      micro_steps: parts that each device goes through one after the other, where a batch does not
        fit at once.
      subnets: each part draws its "own", or all train the "same". Source: ours; the reference has
        "same".
      statistics: batch statistics are of the part's "own" images, or "global", of all devices'
        images in the same micro-step, which needs `subnets` "same". Source: the reference.
      shard_optimizer: spreads the momentum over the devices instead of copying it.
      timeout: seconds; a run of several processes ends when one of its steps takes longer.
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
            raise InputError(
                "statistics='global' needs subnets='same': channels of different subnets have no"
                " statistics in common"
            )
        _between(self, 0, math.inf, "devices")
        _between(self, 1, math.inf, "micro_steps", "timeout")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """What subnets learn from, beside the labels; a phase's `distill` weighs it.

    Attributes:
      loss: "soft" (cross-entropy with the teacher's probabilities), "mse" (of logits) or "alpha"
        (AlphaNet's divergence, arXiv 2102.07954). Source: the reference, which also has "mse".
      source: the frozen largest net of the first phase ("teacher"), or the largest net of the step
        itself ("largest"), which then learns from labels alone. Source: the reference.
      temperature: by which logits are divided before they are compared. Source: the reference.
      smooth_labels: whether what is taught has smoothed labels too. Source: the reference.
    """

    loss: str = "soft"
    source: str = "teacher"
    temperature: float = 1.0
    smooth_labels: bool = True

    def __post_init__(self) -> None:
        _one_of("loss", self.loss, tuple(DISTILLATIONS))
        _one_of("source", self.source, SOURCES)
        _between(self, 0.01, 1000, "temperature")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """The grid of subnets that is evaluated, and the batch-norm calibration of any subnet.

    Attributes:
      split: the images that the grid is measured on, "test" or "held_out".
      resolutions: input resolutions in pixels; () takes the smallest and the largest of
        `data.resolutions`. Source: ours; the reference has 160 and 224.
      batch_size: images that are measured at a time. Source: ours; the reference has 256 a worker.
      calibration_images: training images that a subnet's statistics are taken from. Source: the
        reference.
      calibration_batch_size: images of a calibration batch, over all devices. Source: the
        reference.
    """

    split: str = "test"
    resolutions: tuple[int, ...] = ()
    batch_size: int = 200
    calibration_images: int = 2000
    calibration_batch_size: int = 200


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Which subnets to look for, and by what.

    A predictor learns from measured subnets; evolution queries it, and the winners are measured.

    Attributes:
      archs: random subnets that are measured on the held-out split. Source: ours; the paper
        measures 16,000.
      resolutions: input resolutions in pixels at which they are measured, and which the search
        chooses from; () takes `data.resolutions`.
      cost: "macs" (multiply-accumulates), "params", "memory" (bytes of activations) or "latency"
        (milliseconds).
      latency_table: a file of ours or a directory of the reference's; "" measures this machine,
        once.
      latency_batch: images of a call, where this machine is measured.
      constraints: costs, in the unit of `cost`; the best subnet within each is searched for, and ()
        searches the whole front.
      winners: how many subnets of the front are taken, evenly spaced in cost.
      random_archs: subnets of its cost that the middle winner is compared with.
      population: children in a generation; 0 takes 100, the reference's, and 3,200 for the front.
      generations: how many the evolution has. Source: the reference.
      least_tau: Kendall tau, on subnets that the predictor has not seen, below which it is not
        trusted; -1 trusts any.
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
        _between(self, 20, 1_000_000, "archs")
        _between(self, 1, 1_000_000, "latency_batch", "winners", "generations")
        _between(self, 0, 1_000_000, "population")
        _between(self, 0, RANDOM_POOL, "random_archs")
        _pixels("resolutions", self.resolutions)
        if any(c <= 0 for c in self.constraints):
            raise InputError(f"constraints={shown(self.constraints)}: expected positive costs")
        if not -1 <= self.least_tau <= 1:
            raise InputError(f"least_tau={self.least_tau}: expected -1 to 1")


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """The subnets that `--mode=all` extracts beside the search's winners.

    Attributes:
      archs: corners of the space, "smallest" and "largest".
    """

    archs: tuple[str, ...] = ("smallest", "largest")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A subnet trained further by itself, from the supernet's weights, at its own resolution.

    Attributes:
      epochs: passes over the training images, without the warm-up; `--mode=all` fine-tunes the
        search's middle winner unless this is 0. Source: the reference's published nets, of 25 or
        75; it states no other value.
      warmup_epochs: passes during which the rate rises linearly from 0 to `lr`.
      lr: learning rate after the warm-up; a cosine takes it to 0 at the end.
      distill: weight of the distillation loss from the run's largest net; 0 trains on labels alone.
    """

    epochs: float = 25.0
    warmup_epochs: float = 0.0
    lr: float = 0.01
    distill: float = 1.0

    def __post_init__(self) -> None:
        _between(self, 0, LONGEST, "epochs", "warmup_epochs")
        _between(self, 0, HIGHEST, "lr", "distill")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The files that are made of a subnet; by `--mode=all`, of the search's middle winner.

    Attributes:
      formats: any of "stablehlo", "onnx", "onnx-fp16", "onnx-int8", "tflite", "tflite-fp16" and
        "tflite-int8"; `--format` names others.
      benchmark: images of a call at which `--mode=all` times the subnet in every runtime, besides
        1; 0 times nothing.
    """

    formats: tuple[str, ...] = ("stablehlo",)
    benchmark: int = 0

    def __post_init__(self) -> None:
        for name in self.formats:
            _one_of("formats", name, FORMATS)
        _between(self, 0, 100_000, "benchmark")


@dataclasses.dataclass(frozen=True)
class Config:
    """All fields of a run, most of them in groups.

    Attributes:
      seed: every random number of the run follows from it. Source: the reference.
      init: a trained supernet to start from: its directory, a run's workdir, or a PyTorch file of
        the reference; "" starts from random weights. The run's space may be larger than its own.
      space: which subnets there are.
      data: which images, and how they reach the device.
      train: the optimiser, how nets compute, and checkpoints.
      parallel: how a step is spread over devices and processes.
      distill: what subnets learn from, beside the labels.
      curriculum: names of `phases` in the order in which they are trained; () trains nothing, and
        needs `init`.
      phases: the phases, by names of your own.
      evaluate: the grid of subnets that is evaluated, and the calibration of any subnet.
      search: which subnets to look for, and by what.
      extract: the subnets that `--mode=all` extracts.
      finetune: a subnet trained further by itself.
      export: the files that are made of a subnet.
    """

    seed: int = 0
    init: str = ""
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
        _between(self, 0, LARGEST, "seed")
        _one_of("evaluate.split", self.evaluate.split, ("test", "held_out"))
        for name in self.extract.archs:
            _one_of("extract.archs", name, ("smallest", "largest"))
        for name in self.curriculum:
            _one_of("curriculum", name, tuple(self.phases))
        if len(set(self.curriculum)) != len(self.curriculum):
            raise InputError(f"curriculum={self.curriculum}: a phase is named twice")
        for field in ("data.batch_size", "train.log_every", "train.checkpoint_steps",
                      "train.checkpoint_keep", "evaluate.batch_size", "evaluate.calibration_images",
                      "evaluate.calibration_batch_size"):  # fmt: skip
            section, key = field.split(".")
            value = getattr(getattr(self, section), key)
            if value < 1:
                raise InputError(f"{field}={value}: expected at least 1")
        if not self.data.resolutions:
            raise InputError("data.resolutions=(): expected pixels")
        _pixels("data.resolutions", self.data.resolutions)
        _pixels("evaluate.resolutions", self.evaluate.resolutions)
        space = self.search_space(self.space.num_classes or 2)
        if not (self.curriculum or self.init):
            raise InputError("curriculum=(): expected the names of one phase or more, or `init`")
        check_curriculum(space, self.ordered_phases(), teacher=bool(self.init))
        for name in self.curriculum[1:] if self.train.schedule != "phase" else ():
            if self.phases[name].warmup_epochs:
                raise InputError(
                    f"phases.{name}.warmup_epochs={self.phases[name].warmup_epochs}: with"
                    f" train.schedule={self.train.schedule!r} only the first phase warms up"
                )

    def search_space(self, num_classes: int) -> SearchSpace:
        """The run's search space, for so many classes.

        Raises:
          ValueError: the config says another number.
        """
        fields = {f.name: getattr(self.space, f.name) for f in dataclasses.fields(self.space)}
        configured = fields.pop("num_classes")
        if configured not in (0, num_classes):
            raise InputError(
                f"space.num_classes={configured}: {self.data.name} has {num_classes} classes"
                " (0 takes the dataset's)"
            )
        replaced = {name: value for name, value in fields.items() if value not in (None, ())}
        return get_space(**replaced, num_classes=num_classes)

    def ordered_phases(self) -> list[tuple[str, Phase]]:
        """The phases by name, in the order of the curriculum, each with what it distils from."""
        return [(name, self.complete(self.phases[name])) for name in self.curriculum]

    def complete(self, phase: Phase) -> Phase:
        """The phase with the run's distillation where it has none of its own."""
        return dataclasses.replace(
            phase,
            source=phase.source or self.distill.source,
            loss=phase.loss or self.distill.loss,
        )


def defaults(**sections: Any) -> ml_collections.ConfigDict:
    """A `ConfigDict` with every field of `Config`, and `sections` replacing what they name.

    Raises:
      ValueError: an unknown field or a wrong type, by its full name.
    """
    config = ml_collections.ConfigDict(to_dict(from_dict(sections)))
    for field, kind in hints(SpaceConfig).items():
        if config.space[field] is None:  # of a type, so that a flag can replace it
            config.space[field] = ml_collections.config_dict.placeholder(typing.get_args(kind)[0])
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain data, as `config.json` holds it."""
    return dataclasses.asdict(config)


def from_dict(data: Mapping[str, Any]) -> Config:
    """Checks plain data and freezes it.

    Raises:
      ValueError: an unknown field, a wrong type or a value outside the allowed ones, by name.
    """
    return build(Config, data, largest=LARGEST)


def check_field(config: Any, path: str) -> None:
    """Raises `ValueError` unless a `ConfigDict` has a field of that path, such as "train.clip"."""
    known = ""
    for part in path.split("."):
        names = list(config) if isinstance(config, ml_collections.ConfigDict) else []
        if part not in names:
            near = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {known}{near[0]}? " if near else ""
            expected = f"expected {', '.join(names)}" if names else f"{known[:-1]} has no fields"
            raise InputError(f"unknown field {known}{shown(part)[1:-1]}: {hint}{expected}")
        config, known = config[part], f"{known}{part}."
