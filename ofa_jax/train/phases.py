"""The curriculum: what each phase opens, for how long, at which rate.

Progressive shrinking trains the largest net first, then opens kernel size, depth and expand ratio
one after the other, each phase starting from the one before and distilling from the largest net.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ofa_jax import space as space_lib
from ofa_jax.space import Arch, Choices, Number, SearchSpace

DRAWS = ("random", "sandwich")


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
      subnets: how many subnets are drawn for each part of a batch; their gradients are summed.
        Source: the reference, of its kernel phase; then it draws 2 and 4.
      draw: "random", each independently, or "sandwich", the largest and the smallest open net
        and the rest at random. Source: the reference.
      epochs: length in passes over the training images, without the warm-up. Source: ours; the
        reference has 25 and 120.
      warmup_epochs: passes during which the rate rises linearly from `warmup_lr` to `lr`. Source:
        ours; the reference has 0 and 5.
      lr: learning rate after the warm-up; a cosine takes it to 0 at the end of the phase. Source:
        the reference, of its kernel phase, for one worker of 64 images.
      warmup_lr: learning rate that the warm-up starts from. Source: ours; the reference has the
        rate of one worker.
      distill: weight of the distillation term; 0 trains on labels alone. Source: the reference.
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
    sort_width: bool = False

    def __post_init__(self) -> None:
        if self.draw not in DRAWS:
            raise ValueError(f"draw={self.draw!r}: expected one of {', '.join(DRAWS)}")
        fewest = 2 if self.draw == "sandwich" else 1
        if self.subnets < fewest:
            raise ValueError(f"subnets={self.subnets}: draw={self.draw!r} needs at least {fewest}")
        for field in ("epochs", "warmup_epochs", "lr", "warmup_lr", "distill"):
            value = getattr(self, field)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{field}={value}: expected a number of at least 0")

    def choices(self, space: SearchSpace) -> Choices:
        """The open choices as arrays; `ValueError` where the space lacks one of them."""
        return space.open_choices(
            self.kernels or None, self.expands or None, self.depths or None, self.widths or None
        )

    def steps(self, images: int, batch_size: int) -> int:
        """How many steps the phase has, warm-up included, on so many training images."""
        return max(1, round((self.epochs + self.warmup_epochs) * (images // batch_size)))

    def only_largest(self, space: SearchSpace) -> bool:
        """Whether the largest net is the only one open."""
        opened = [mask for mask in self.choices(space) if mask is not None]
        return all(int(mask.sum()) == 1 and bool(mask[-1]) for mask in opened)


class PhaseData(NamedTuple):
    """What the compiled step reads of a phase: all data, so no phase needs its own program."""

    choices: Choices
    sandwich: jax.Array  # bool
    distill: jax.Array  # float32
    lr: jax.Array  # float32
    warmup_lr: jax.Array  # float32
    first_step: jax.Array  # int32, the run's step at which the phase begins
    warmup_steps: jax.Array  # int32
    steps: jax.Array  # int32, warm-up included


def phase_data(
    phase: Phase, space: SearchSpace, first_step: int, images: int, batch_size: int
) -> PhaseData:
    """The phase as arrays, for a run of `batch_size` images a step out of `images`."""
    return PhaseData(
        choices=phase.choices(space),
        sandwich=jnp.asarray(phase.draw == "sandwich"),
        distill=jnp.float32(phase.distill),
        lr=jnp.float32(phase.lr),
        warmup_lr=jnp.float32(phase.warmup_lr),
        first_step=jnp.int32(first_step),
        warmup_steps=jnp.int32(round(phase.warmup_epochs * (images // batch_size))),
        steps=jnp.int32(phase.steps(images, batch_size)),
    )


def learning_rate(phase: PhaseData, step: jax.Array) -> jax.Array:
    """The rate at a step of the run: linear warm-up, then a cosine to 0.

    Source: `calc_learning_rate` and `warmup_adjust_learning_rate` of the reference.
    """
    done = (step - phase.first_step).astype(jnp.float32)
    warmup = phase.warmup_steps.astype(jnp.float32)
    rising = phase.warmup_lr + (phase.lr - phase.warmup_lr) * (done + 1) / jnp.maximum(warmup, 1)
    share = (done - warmup) / jnp.maximum(phase.steps.astype(jnp.float32) - warmup, 1)
    falling = 0.5 * phase.lr * (1 + jnp.cos(jnp.pi * share))
    return jnp.where(done < warmup, rising, falling)


def draw_archs(space: SearchSpace, phase: PhaseData, keys: jax.Array) -> Arch:
    """The archs that train on the same images, `[subnets, ...]` as `keys`, by the phase's rule."""
    archs = jax.vmap(space.sample, (0, None))(keys, phase.choices)
    if len(keys) == 1:
        return archs
    ends = space_lib.stack([space.largest(phase.choices), space.smallest(phase.choices)])
    with_ends = jax.tree.map(lambda a, b: jnp.concatenate([b, a[2:]]), archs, ends)
    return jax.tree.map(lambda a, b: jnp.where(phase.sandwich, b, a), archs, with_ends)


def check_curriculum(space: SearchSpace, phases: Sequence[tuple[str, Phase]], source: str) -> None:
    """Raises `ValueError`, naming the phase, for choices the space lacks or a missing teacher."""
    if not phases:
        raise ValueError("curriculum=(): expected the names of one phase or more")
    for name, phase in phases:
        try:
            phase.choices(space)
        except ValueError as error:
            raise ValueError(f"phases.{name}.{error}") from error
    first_name, first = phases[0]
    taught = [name for name, phase in phases if phase.distill > 0]
    if source == "teacher" and taught and (first.distill > 0 or not first.only_largest(space)):
        fields = ("kernels", "expands", "depths", "widths")
        only = [f"{f}={getattr(space, f)[-1:]}" for f in fields if len(getattr(space, f)) > 1]
        raise ValueError(
            f"phases.{first_name}: phase {taught[0]!r} distils from a teacher, so the first phase"
            f" must train the largest net alone, with distill=0, {', '.join(only)}"
            " (or set distill.source='largest')"
        )
