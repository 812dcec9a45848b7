"""Image transforms: on uint8 NumPy images on the host, normalisation on the device."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize of uint8 `[height, width, 3]` to `[size, size, 3]`."""
    if image.shape[:2] == (size, size):
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def random_shift(image: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Pads with zeros by `shift` of the size on every side and crops a random window back."""
    margin = round(shift * image.shape[0])
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    top, left = rng.integers(0, 2 * margin + 1, size=2)
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def normalize_images(
    images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """uint8 `[..., height, width, 3]` to float32: scaled to [0, 1], minus `mean`, over `std`."""
    shape = (1,) * (images.ndim - 1) + (3,)
    pixels = images.astype(jnp.float32) / 255
    return (pixels - jnp.reshape(jnp.asarray(mean), shape)) / jnp.reshape(jnp.asarray(std), shape)
