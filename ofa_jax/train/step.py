"""One training step: draw subnets, distil each from the teacher, sum their gradients, update.

The step is a pure function. What differs between phases enters as `PhaseData`, so one program
per (resolution, subnets per step) serves the whole curriculum.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ofa_jax.config import Config
from ofa_jax.data.transforms import normalize_images
from ofa_jax.models import Network
from ofa_jax.space import Arch
from ofa_jax.train import losses
from ofa_jax.train.phases import PhaseData, draw_archs, learning_rate

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step changes: the run's step, the variables and the optimiser's state."""

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree


def optimizer(config: Config) -> optax.GradientTransformation:
    """The reference's SGD, without the learning rate: coupled decay, then Nesterov momentum.

    Parameters whose path contains "bn" or "bias" are not decayed; kernel transforms are.
    """
    return optax.chain(
        optax.add_decayed_weights(config.train.weight_decay, mask=decayed),
        optax.trace(config.train.momentum, nesterov=True),
    )


def decayed(params: Tree) -> Tree:
    """True for every parameter that takes weight decay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(s in jax.tree_util.keystr(path) for s in ("bn", "bias")), params
    )


def init_state(config: Config, variables: Tree, step: int) -> TrainState:
    """The state at the start of a phase: given variables and a fresh optimiser."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    return TrainState(jnp.int32(step), params, batch_stats, optimizer(config).init(params))


def train_step(
    net: Network,
    config: Config,
    subnets: int,
    state: TrainState,
    teacher: Tree,
    phase: PhaseData,
    batch: dict[str, jax.Array],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Trains `subnets` freshly drawn subnets on one batch.

    Args:
      net: the supernet (static).
      config: the run's configuration (static).
      subnets: how many to draw (static); gradients are summed, running statistics move in turn.
      state: donated.
      teacher: the frozen variables of the largest net, unused where `phase.distill` is 0.
      phase: the phase as data.
      batch: "image" `[batch, height, width, 3]` uint8 and "label" `[batch]` int32.

    Returns:
      The new state and metrics: mean loss and accuracy of the subnets, gradient norm, rate.
    """
    # Every random number comes from the seed and the step, so a resumed run repeats none.
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    arch_key, dropout_key = jax.random.split(key)
    images = normalize_images(batch["image"], config.data.mean, config.data.std)
    archs = draw_archs(net.space, phase, arch_key, subnets)
    if config.distill.source == "largest":
        teacher = {"params": state.params, "batch_stats": state.batch_stats}
    targets = jax.lax.cond(
        phase.distill > 0,
        functools.partial(_teacher_logits, net),
        lambda _, images: jnp.zeros((images.shape[0], net.space.num_classes)),
        jax.lax.stop_gradient(teacher),
        images,
    )

    def subnet_loss(params: Tree, batch_stats: Tree, arch: Arch, key: jax.Array) -> Any:
        logits, new = net.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            arch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        labels_loss = losses.smoothed_cross_entropy(
            logits, batch["label"], config.train.label_smoothing
        )
        distilled = losses.DISTILLATIONS[config.distill.loss](logits, targets)
        loss = phase.distill * distilled + labels_loss
        accuracy = (logits.argmax(-1) == batch["label"]).mean()
        return loss, (new["batch_stats"], accuracy)

    def add_subnet(carry: Any, drawn: Any) -> Any:
        total, batch_stats = carry
        (loss, (batch_stats, accuracy)), gradient = jax.value_and_grad(subnet_loss, has_aux=True)(
            state.params, batch_stats, *drawn
        )
        return (jax.tree.map(jnp.add, total, gradient), batch_stats), (loss, accuracy)

    zero = jax.tree.map(jnp.zeros_like, state.params)
    (gradient, batch_stats), (loss, accuracy) = jax.lax.scan(
        add_subnet, (zero, state.batch_stats), (archs, jax.random.split(dropout_key, subnets))
    )
    updates, opt_state = optimizer(config).update(gradient, state.opt_state, state.params)
    rate = learning_rate(phase, state.step)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    metrics = {
        "loss": loss.mean(),
        "accuracy": accuracy.mean(),
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": rate,
    }
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def _teacher_logits(net: Network, teacher: Tree, images: jax.Array) -> jax.Array:
    # Batch statistics, as the reference's teacher in train mode; no dropout key, so no dropout.
    logits, _ = net.apply(teacher, images, net.space.largest(), train=True, mutable=["batch_stats"])
    return logits
