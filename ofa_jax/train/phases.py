"""The curriculum: what each phase opens, for how long, at which rate.

Progressive shrinking trains the largest net first, then opens kernel size, depth and expand ratio
one after the other, each phase starting from the one before and distilling from the largest net.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ofa_jax import space as space_lib
from ofa_jax.errors import InputError
from ofa_jax.space import Arch, Choices, Number, SearchSpace
from ofa_jax.train.losses import DISTILLATIONS

DRAWS = ("random", "sandwich")
SOURCES = ("teacher", "largest")
# More than anybody means: epochs, subnets a step, and rates or weights.
LONGEST, MOST, HIGHEST = 100_000, 1000, 1000


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stage of the curriculum.

    Where a phase learns from the teacher, the first one trains the largest net alone, with
    `distill` 0. Learning rates are for a batch as a whole, over all devices.

    Attributes:
      kernels: kernel sizes that are open, in pixels; () opens all of the space's.
      expands: expand ratios that are open; () opens all of the space's.
      depths: depths that are open, in blocks; () opens all of the space's.
      widths: width multipliers that are open; () opens all of the space's.
      subnets: how many subnets are sampled for each part of a batch; their gradients are summed.
        Source: the reference, of its kernel phase; then it draws 2 and 4.
      draw: "random", each independently, or "sandwich", the largest and the smallest open net
        and the rest at random. Source: the reference.
      epochs: length in passes over the training images, without the warm-up. Source: ours; the
        reference has 25 and 120.
      warmup_epochs: passes during which the rate rises linearly from `warmup_lr` to `lr`. Source:
        ours; the reference has 0 and 5.
      lr: learning rate after the warm-up; a cosine takes it to 0 at the end of the phase, or of the
        run (`train.schedule`). Source: the reference, of its kernel phase, for one worker of 64
        images.
      warmup_lr: learning rate that the warm-up starts from. Source: ours; the reference has the
        rate of one worker.
      distill: weight of the distillation term; 0 trains on labels alone. Source: the reference.
      labels: weight of the labels where there is a distillation term; what teaches, and whoever is
        not taught, has 1. Source: the reference; BigNAS and AlphaNet have 0.
      source: as `distill.source`, in this phase; "" takes that.
      loss: as `distill.loss`, in this phase; "" takes that.
      ramp_epochs: passes during which the weight of all subnets but the largest rises linearly from
        0 to 1; needs `draw` "sandwich". Source: DepS, arXiv 2407.06167, has 5.
      sort_width: whether to sort channels by importance before the phase starts. Source: ours; the
        reference does before each expand phase.
    """

    kernels: tuple[int, ...] = ()
    expands: tuple[Number, ...] = ()
    depths: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()
    subnets: int = 1
    draw: str = "random"
    epochs: float = 1.0
    warmup_epochs: float = 0.0
    lr: float = 0.03
    warmup_lr: float = 0.0
    distill: float = 1.0
    labels: float = 1.0
    source: str = ""
    loss: str = ""
    ramp_epochs: float = 0.0
    sort_width: bool = False

    def __post_init__(self) -> None:
        for field, allowed in (("draw", DRAWS), ("source", ("", *SOURCES)),
                               ("loss", ("", *DISTILLATIONS))):  # fmt: skip
            if getattr(self, field) not in allowed:
                names = ", ".join(name or "''" for name in allowed)
                raise InputError(f"{field}={getattr(self, field)!r}: expected one of {names}")
        fewest = 2 if self.draw == "sandwich" else 1
        if self.subnets < fewest:
            raise InputError(f"subnets={self.subnets}: draw={self.draw!r} needs at least {fewest}")
        if self.subnets > MOST:
            raise InputError(f"subnets={self.subnets}: expected at most {MOST}")
        epochs = dict.fromkeys(("epochs", "warmup_epochs", "ramp_epochs"), LONGEST)
        others = dict.fromkeys(("lr", "warmup_lr", "distill", "labels"), HIGHEST)
        for field, highest in {**epochs, **others}.items():
            value = getattr(self, field)
            if not 0 <= value <= highest:
                raise InputError(f"{field}={value}: expected 0 to {highest:,}")
        if self.ramp_epochs and self.draw != "sandwich":
            raise InputError(f"ramp_epochs={self.ramp_epochs}: needs draw='sandwich'")

    def choices(self, space: SearchSpace) -> Choices:
        """The open choices as arrays; `ValueError` where the space lacks one of them."""
        return space.open_choices(
            self.kernels or None, self.expands or None, self.depths or None, self.widths or None
        )

    def steps(self, images: int, batch_size: int) -> int:
        """How many steps the phase has, warm-up included, on so many training images."""
        return max(1, round((self.epochs + self.warmup_epochs) * (images // batch_size)))

    @property
    def has_teacher_pass(self) -> bool:
        """Whether a pass is for teaching alone: a sandwich's largest net trains by its own."""
        return self.distill > 0 and not (self.source == "largest" and self.draw == "sandwich")

    def only_largest(self, space: SearchSpace) -> bool:
        """Whether the largest net is the only one open."""
        opened = [mask for mask in self.choices(space) if mask is not None]
        return all(int(mask.sum()) == 1 and bool(mask[-1]) for mask in opened)


class PhaseData(NamedTuple):
    """What the compiled step reads of a phase: all data, so no phase needs its own program."""

    choices: Choices
    subnets: jax.Array  # int32
    sandwich: jax.Array  # bool
    distill: jax.Array  # float32
    labels: jax.Array  # float32
    in_place: jax.Array  # bool, whether the step's largest net teaches
    loss: jax.Array  # int32, which of `DISTILLATIONS`
    lr: jax.Array  # float32
    warmup_lr: jax.Array  # float32
    first_step: jax.Array  # int32, the run's step at which the phase begins
    warmup_steps: jax.Array  # int32
    ramp_steps: jax.Array  # int32
    falls_from: jax.Array  # int32, the run's step at which the cosine begins
    falls_to: jax.Array  # int32, at which it is 0


def phase_data(
    phase: Phase,
    space: SearchSpace,
    first_step: int,
    images: int,
    batch_size: int,
    falls: tuple[int, int] | None = None,
) -> PhaseData:
    """The phase as arrays, for a run of `batch_size` images a step out of `images`.

    Args:
      falls: the run's steps at which the rate's cosine begins and ends; None takes the phase's.
    """
    epoch = images // batch_size
    warmup_steps = round(phase.warmup_epochs * epoch)
    begins, ends = falls or (
        first_step + warmup_steps, first_step + phase.steps(images, batch_size)
    )  # fmt: skip
    return PhaseData(
        choices=phase.choices(space),
        subnets=jnp.int32(phase.subnets),
        sandwich=jnp.asarray(phase.draw == "sandwich"),
        distill=jnp.float32(phase.distill),
        labels=jnp.float32(phase.labels if phase.distill else 1.0),
        in_place=jnp.asarray(phase.source == "largest"),
        loss=jnp.int32(tuple(DISTILLATIONS).index(phase.loss or "soft")),
        lr=jnp.float32(phase.lr),
        warmup_lr=jnp.float32(phase.warmup_lr),
        first_step=jnp.int32(first_step),
        warmup_steps=jnp.int32(warmup_steps),
        ramp_steps=jnp.int32(round(phase.ramp_epochs * epoch)),
        falls_from=jnp.int32(begins),
        falls_to=jnp.int32(ends),
    )


def learning_rate(phase: PhaseData, step: jax.Array) -> jax.Array:
    """The rate at a step of the run: linear warm-up, then a cosine to 0.

    Source: `calc_learning_rate` and `warmup_adjust_learning_rate` of the reference.
    """
    done = (step - phase.first_step).astype(jnp.float32)
    warmup = phase.warmup_steps.astype(jnp.float32)
    rising = phase.warmup_lr + (phase.lr - phase.warmup_lr) * (done + 1) / jnp.maximum(warmup, 1)
    length = jnp.maximum(phase.falls_to - phase.falls_from, 1).astype(jnp.float32)
    share = (step - phase.falls_from).astype(jnp.float32) / length
    falling = 0.5 * phase.lr * (1 + jnp.cos(jnp.pi * share))
    return jnp.where(done < warmup, rising, falling)


def ramp(phase: PhaseData, step: jax.Array) -> jax.Array:
    """The weight, at a step of the run, of all subnets but the largest: it rises from 0 to 1."""
    done = (step - phase.first_step).astype(jnp.float32)
    length = jnp.maximum(phase.ramp_steps, 1).astype(jnp.float32)
    return jnp.where(phase.ramp_steps > 0, jnp.minimum(done / length, 1), 1)


def draw_archs(space: SearchSpace, phase: PhaseData, keys: jax.Array) -> Arch:
    """The archs that train on the same images, `[subnets, ...]` as `keys`, by the phase's rule."""
    archs = jax.vmap(space.sample, (0, None))(keys, phase.choices)
    if len(keys) == 1:
        return archs
    ends = space_lib.stack([space.largest(phase.choices), space.smallest(phase.choices)])
    with_ends = jax.tree.map(lambda a, b: jnp.concatenate([b, a[2:]]), archs, ends)
    return jax.tree.map(lambda a, b: jnp.where(phase.sandwich, b, a), archs, with_ends)


def check_curriculum(
    space: SearchSpace, phases: Sequence[tuple[str, Phase]], teacher: bool = False
) -> None:
    """Raises `ValueError`, naming the phase, for choices the space lacks or a missing teacher.

    Args:
      teacher: whether a trained supernet, which the run starts from, can teach.
    """
    for name, phase in phases:
        try:
            phase.choices(space)
        except InputError as error:
            raise InputError(f"phases.{name}.{error}") from error
    if not phases or teacher:
        return
    first_name, first = phases[0]
    taught = [name for name, phase in phases if phase.distill > 0 and phase.source != "largest"]
    if taught and (taught[0] == first_name or not first.only_largest(space)):
        fields = ("kernels", "expands", "depths", "widths")
        only = [f"{f}={getattr(space, f)[-1:]}" for f in fields if len(getattr(space, f)) > 1]
        raise InputError(
            f"phases.{first_name}: phase {taught[0]!r} distils from a teacher, so the first phase"
            f" must train the largest net alone, with distill=0, {', '.join(only)}"
            " (or set distill.source='largest')"
        )
