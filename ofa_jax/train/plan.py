"""The run's steps, numbered through all its phases."""

from typing import NamedTuple

from ofa_jax.config import Config
from ofa_jax.train.phases import Phase


class Leg(NamedTuple):
    """A phase's place in the run: steps `first` to `end`, numbered through the whole run."""

    name: str
    phase: Phase
    first: int
    end: int

    @property
    def units(self) -> float:
        """The work in subnet passes (forward and backward); a teacher's forward is a third."""
        per_step = self.phase.subnets + (1 / 3 if self.phase.distill else 0)
        return per_step * (self.end - self.first)


def plan(config: Config, images: int) -> list[Leg]:
    """The curriculum as steps, for so many training images."""
    legs, first = [], 0
    for name, phase in config.ordered_phases():
        end = first + phase.steps(images, config.data.batch_size)
        legs.append(Leg(name, phase, first, end))
        first = end
    return legs
