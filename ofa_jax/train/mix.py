"""Mixup and CutMix: each image of a batch mixed with another one, and its label with that one's.

On the device, inside the step, as the partner is an image of the same batch.
"""

import jax
import jax.numpy as jnp


def mix(
    key: jax.Array, images: jax.Array, labels: jax.Array, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """A batch mixed with itself, its order reversed; one rule and one share for all of its images.

    Where both are on, each has half of the batches. Sources: Zhang et al. 2018, arXiv
    1710.09412; Yun et al. 2019, arXiv 1905.04899.

    Args:
      key: a random key.
      images: `[batch, height, width, channels]`.
      labels: probabilities `[batch, classes]`.
      mixup: alpha of the Beta distribution that Mixup's share is sampled from; 0 is without Mixup.
      cutmix: the same of CutMix, whose share is of the image's area.

    Returns:
      Images and labels of the same shapes.
    """
    if not (mixup or cutmix):
        return images, labels
    rule_key, share_key, box_key = jax.random.split(key, 3)
    cuts = jnp.asarray(cutmix > 0)
    if mixup and cutmix:
        cuts = jax.random.bernoulli(rule_key, jnp.float32(0.5))
    alpha = jnp.where(cuts, jnp.float32(cutmix or 1.0), jnp.float32(mixup or 1.0))
    kept = jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)
    box = _box(box_key, (images.shape[1], images.shape[2]), 1 - kept)
    own = jnp.where(cuts, 1 - box, kept)[None, :, :, None].astype(images.dtype)
    share = jnp.where(cuts, 1 - box.mean(), kept)
    mixed = own * images + (1 - own) * images[::-1]
    return mixed, share * labels + (1 - share) * labels[::-1]


def _box(key: jax.Array, size: tuple[int, int], area: jax.Array) -> jax.Array:
    """1 in a box of that share of the area, about a random centre and cut at the edges; else 0."""
    sides = jnp.asarray(size, jnp.float32)
    centre = jax.random.uniform(key, (2,), jnp.float32) * sides
    half = jnp.sqrt(area) * sides / 2
    low, high = jnp.floor(centre - half), jnp.floor(centre + half)
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in size)
    inside_rows = (rows >= low[0]) & (rows < high[0])
    inside_columns = (columns >= low[1]) & (columns < high[1])
    return (inside_rows[:, None] & inside_columns[None, :]).astype(jnp.float32)
