"""The groups `evaluate`, `search`, `extract` and `export`: what is made of a trained supernet."""

import dataclasses

from ofa_jax.errors import InputError
from ofa_jax.files import shown
from ofa_jax.run.groups.limits import between, one_of, pixels
from ofa_jax.search.evolution import FEWEST
from ofa_jax.search.front import FEWEST_OF_FRONT

# What a subnet can be exported to.
FORMATS = (
    "stablehlo", "onnx", "onnx-fp16", "onnx-int8", "tflite", "tflite-fp16", "tflite-int8",
)  # fmt: skip
# Random subnets, of which those nearest in cost to a winner are compared with it.
RANDOM_POOL = 4096


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
        one_of("cost", self.cost, ("macs", "params", "memory", "latency"))
        between(self, 20, 1_000_000, "archs")
        between(self, 1, 1_000_000, "latency_batch", "generations")
        between(self, 1, 1000, "winners")
        least = FEWEST if self.constraints else FEWEST_OF_FRONT
        if self.population and not least <= self.population <= 1_000_000:
            raise InputError(f"population={self.population}: expected 0, or {least} to 1000000")
        between(self, 0, RANDOM_POOL, "random_archs")
        pixels("resolutions", self.resolutions)
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
            one_of("formats", name, FORMATS)
        between(self, 0, 100_000, "benchmark")
