"""Pixels as networks take them: scaled to [0, 1], minus a mean, over a standard deviation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ofa_jax.errors import InputError
from ofa_jax.files import shown

# Of red, green and blue of ImageNet's pixels in [0, 1], as the reference has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalization(NamedTuple):
    """How pixels in [0, 1] become what a network takes: minus `mean`, over `std`, by channel."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


IMAGENET = Normalization()


def normalize_images(
    images: jax.Array, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> jax.Array:
    """uint8 `[..., height, width, 3]` to float32: scaled to [0, 1], minus `mean`, over `std`."""
    shape = (1,) * (images.ndim - 1) + (3,)
    pixels = images.astype(jnp.float32) / 255
    means, stds = (jnp.reshape(jnp.asarray(v, jnp.float32), shape) for v in (mean, std))
    return (pixels - means) / stds


def check_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises `ValueError` unless both are of three channels of pixels in [0, 1]."""
    for field, values, low in (("mean", mean, 0), ("std", std, 0.001)):
        if len(values) != 3:
            raise InputError(f"{field}={shown(values)}: expected 3 numbers")
        if not all(low <= value <= 1 for value in values):
            raise InputError(f"{field}={values}: expected numbers from {low} to 1")
