"""The run's steps, numbered through all its phases."""

from typing import NamedTuple

from ofa_jax.errors import InputError
from ofa_jax.run.config import LARGEST, Config
from ofa_jax.train.phases import Phase


class Leg(NamedTuple):
    """A phase's place in the run: steps `first` to `end`, numbered through the whole run."""

    name: str
    phase: Phase
    first: int
    end: int
    falls: tuple[int, int] | None = None  # the steps of the rate's cosine, where not the phase's

    @property
    def units(self) -> float:
        """The work in subnet passes (forward and backward); a teacher's forward is a third."""
        per_step = self.phase.subnets + (1 / 3 if self.phase.has_teacher_pass else 0)
        return per_step * (self.end - self.first)


def plan(config: Config, images: int) -> list[Leg]:
    """The curriculum as steps, for so many training images.

    Raises:
      ValueError: more steps than 32 bits count.
    """
    legs: list[Leg] = []
    for name, phase in config.ordered_phases():
        first = legs[-1].end if legs else 0
        legs.append(Leg(name, phase, first, first + phase.steps(images, config.data.batch_size)))
    if legs and legs[-1].end > LARGEST:
        raise InputError(f"{legs[-1].end:,} steps: expected at most {LARGEST:,}: fewer epochs")
    if config.train.schedule == "phase" or not legs:
        return legs
    warmup = round(legs[0].phase.warmup_epochs * (images // config.data.batch_size))
    if config.train.schedule == "run":
        return [leg._replace(falls=(warmup, legs[-1].end)) for leg in legs]
    return _fall_by_passes(legs, warmup)


def _fall_by_passes(legs: list[Leg], warmup: int) -> list[Leg]:
    """The legs with one cosine over the subnet passes after the warm-up, each with its share.

    Within a leg steps cost the same, so its part is that of a cosine over as many steps as the
    whole run would have at that cost.
    """
    costs = [leg.units / max(leg.end - leg.first, 1) for leg in legs]
    total = sum(leg.units for leg in legs) - warmup * costs[0]
    fallen, planned = -warmup * costs[0], []
    for leg, cost in zip(legs, costs, strict=True):
        begin, length = leg.first - fallen / cost, total / cost
        planned.append(leg._replace(falls=(round(begin), round(begin + length))))
        fallen += leg.units
    return planned
