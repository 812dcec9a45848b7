"""Losses: smoothed cross-entropy on labels and the ways to distil; all `[batch, classes]` logits.

Every distillation takes `(student, teacher)` logits and returns a float32 scalar, the mean over
the batch; the teacher's logits get no gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float | jax.Array
) -> jax.Array:
    """Mean cross-entropy with probabilities `[batch, classes]` smoothed as (1 - s) p + s / classes.

    `labels` may be int labels `[batch]`.
    """
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    targets = optax.smooth_labels(labels, smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()


def soft_cross_entropy(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Cross-entropy of the student against the teacher's softmax, temperature 1 (the reference)."""
    targets = jax.nn.softmax(jax.lax.stop_gradient(teacher.astype(jnp.float32)))
    return optax.softmax_cross_entropy(student.astype(jnp.float32), targets).mean()


def logit_mse(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean squared difference of logits (the reference's `kd_type="mse"`)."""
    return jnp.square(student - jax.lax.stop_gradient(teacher)).astype(jnp.float32).mean()


def alpha_divergence(
    student: jax.Array,
    teacher: jax.Array,
    alpha_min: float = -1.0,
    alpha_max: float = 1.0,
    clip: float = 5.0,
) -> jax.Array:
    """AlphaNet's adaptive divergence: per image the larger of alpha_min's and alpha_max's.

    The value is the divergence, the gradient AlphaNet's: sum(q * rho * grad log q) with the
    clipped importance weights held fixed. Ratios are taken between log-probabilities, so that a
    confident teacher or student gives no NaN (a known trap of the original).

    Source: Wang et al. 2021, arXiv 2102.07954, equations 5 to 8.
    """
    log_q = jax.nn.log_softmax(student.astype(jnp.float32))
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(teacher.astype(jnp.float32)))
    low, low_gradient = _f_divergence(log_q, log_p, alpha_min, clip)
    high, high_gradient = _f_divergence(log_q, log_p, alpha_max, clip)
    value = jnp.where(low > high, low, high)
    gradient = jnp.where(low > high, low_gradient, high_gradient)
    return (gradient + jax.lax.stop_gradient(value - gradient)).mean()


def _f_divergence(
    log_q: jax.Array, log_p: jax.Array, alpha: float, clip: float
) -> tuple[jax.Array, jax.Array]:
    """The divergence per image, and a term with its gradient in `log_q`."""
    fixed = jax.lax.stop_gradient(log_q)
    q, log_ratio = jnp.exp(fixed), log_p - fixed
    if alpha == 1.0:  # KL(p || q), unclipped as in the original; q * ratio is p
        p = jnp.exp(log_p)
        return (p * log_ratio).sum(-1), -(p * log_q).sum(-1)
    base = 1 / (alpha * (alpha - 1))
    weight = jnp.exp(jnp.minimum(alpha * log_ratio, jnp.log(clip)))
    divergence = (q * (weight - 1) * base).sum(-1)
    return divergence, -(q * (weight / alpha + base) * log_q).sum(-1)


DISTILLATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "soft": soft_cross_entropy,
    "mse": logit_mse,
    "alpha": alpha_divergence,
}


def distillation(
    loss: jax.Array, student: jax.Array, teacher: jax.Array, temperature: float = 1.0
) -> jax.Array:
    """The loss of number `loss` in `DISTILLATIONS`, of logits over `temperature`, times its square.

    The square keeps the size of the gradient. Source: Hinton et al. 2015, arXiv 1503.02531.
    """
    losses = tuple(DISTILLATIONS.values())
    value = jax.lax.switch(loss, losses, student / temperature, teacher / temperature)
    return temperature**2 * value
