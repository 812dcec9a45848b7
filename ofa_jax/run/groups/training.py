"""The groups `train`, `parallel`, `distill` and `finetune`: how weights are trained."""

import dataclasses
import math

from ofa_jax.errors import InputError
from ofa_jax.run.groups.limits import between, one_of
from ofa_jax.train.losses import DISTILLATIONS
from ofa_jax.train.phases import HIGHEST, LONGEST, SOURCES


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
      dtype: what training steps compute in, "float32", "bfloat16", or "auto": bfloat16 on TPUs and
        on GPUs with units for it, else float32; parameters, optimiser, statistics and losses are
        float32 in all. Source: ours; the reference has float32.
      compute: a subnet's blocks are computed each at its largest ("masks"), as sampled
        ("branches"), as sampled but for the kernels ("widths"), or as suits the backend ("auto":
        branches on CPU; on TPU widths, of a ResNet masks; masks on GPU); also in
        evaluation.
      ema: share of itself that a moving average of the parameters keeps at each step, such as
        0.9998. A phase then leaves that average: it is validated, enters the next phase,
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
    dtype: str = "auto"
    compute: str = "auto"
    ema: float = 0.0
    log_every: int = 10
    checkpoint_steps: int = 500
    checkpoint_keep: int = 2

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        one_of("compute", self.compute, ("auto", "masks", "branches", "widths"))
        one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        one_of("schedule", self.schedule, ("phase", "run", "passes"))
        between(self, 0, math.inf, "clip")
        between(self, 0, 1, "label_smoothing", "weight_decay")
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
        one_of("subnets", self.subnets, ("own", "same"))
        one_of("statistics", self.statistics, ("own", "global"))
        if self.statistics == "global" and self.subnets == "own":
            raise InputError(
                "statistics='global' needs subnets='same': channels of different subnets have no"
                " statistics in common"
            )
        between(self, 0, math.inf, "devices")
        between(self, 1, math.inf, "micro_steps", "timeout")


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
        one_of("loss", self.loss, tuple(DISTILLATIONS))
        one_of("source", self.source, SOURCES)
        between(self, 0.01, 1000, "temperature")


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
        between(self, 0, LONGEST, "epochs", "warmup_epochs")
        between(self, 0, HIGHEST, "lr", "distill")
