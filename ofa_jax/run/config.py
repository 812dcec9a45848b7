"""The configuration of a run: frozen dataclasses, checked once at start.

Files in `configs/` give an `ml_collections.ConfigDict`, so that `--config.x.y=value` overrides any
field; `from_dict` turns it into a `Config`, and nothing deeper ever reads a dict. The fields of a
group, such as `train`, are in a file of `groups/`.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from ofa_jax.errors import InputError
from ofa_jax.families import get_space
from ofa_jax.files import shown
from ofa_jax.names import check_name
from ofa_jax.plain import build, hints
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.run.groups.limits import between, one_of, pixels
from ofa_jax.run.groups.space import SpaceConfig
from ofa_jax.run.groups.subnets import EvaluateConfig, ExportConfig, ExtractConfig, SearchConfig
from ofa_jax.run.groups.training import (
    DistillConfig,
    FinetuneConfig,
    ParallelConfig,
    TrainConfig,
)
from ofa_jax.space import SearchSpace
from ofa_jax.train.phases import Phase, check_curriculum

LARGEST = 2**31 - 1  # what an int32 on the device holds


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
    space: SpaceConfig = dataclasses.field(default_factory=SpaceConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    distill: DistillConfig = dataclasses.field(default_factory=DistillConfig)
    curriculum: tuple[str, ...] = ()
    phases: dict[str, Phase] = dataclasses.field(default_factory=dict, hash=False)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    extract: ExtractConfig = dataclasses.field(default_factory=ExtractConfig)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        between(self, 0, LARGEST, "seed")
        one_of("evaluate.split", self.evaluate.split, ("test", "held_out"))
        for name in self.extract.archs:
            one_of("extract.archs", name, ("smallest", "largest"))
        for name in self.phases:  # of directories, too
            check_name("the name of a phase", name)
        for name in self.curriculum:
            one_of("curriculum", name, tuple(self.phases))
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
        pixels("data.resolutions", self.data.resolutions)
        pixels("evaluate.resolutions", self.evaluate.resolutions)
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
