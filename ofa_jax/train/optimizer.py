"""Optimisers without a learning rate: the phase's rate is applied by the step."""

from typing import Any

import jax
import optax

Tree = Any


def sgd(
    momentum: float = 0.9, weight_decay: float = 3e-5, clip: float = 0.0
) -> optax.GradientTransformation:
    """The reference's SGD: coupled decay, then Nesterov momentum.

    Parameters whose path contains "bn" or "bias" are not decayed; kernel transforms are.

    Args:
      momentum: share of itself that the trace keeps.
      weight_decay: share of the weights that is added to the gradient.
      clip: largest norm of a step's gradient; 0 is none.
    """
    decay = optax.add_decayed_weights(weight_decay, mask=decayed)
    return optax.chain(*_clip(clip), decay, optax.trace(momentum, nesterov=True))


def adamw(
    momentum: float = 0.9, weight_decay: float = 3e-5, clip: float = 0.0
) -> optax.GradientTransformation:
    """AdamW with `momentum` as its first beta; as `sgd`, but that decay comes last."""
    decay = optax.add_decayed_weights(weight_decay, mask=decayed)
    return optax.chain(*_clip(clip), optax.scale_by_adam(b1=momentum), decay)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def decayed(params: Tree) -> Tree:
    """True for every parameter that takes weight decay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(s in jax.tree_util.keystr(path) for s in ("bn", "bias")), params
    )


def _clip(norm: float) -> list[optax.GradientTransformation]:
    return [optax.clip_by_global_norm(norm)] if norm else []
