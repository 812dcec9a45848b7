"""TrivialAugment (wide): one random operation of random strength on each image.

Source: Müller & Hutter 2021, arXiv 2103.10158, with the operations and strengths of
`TrivialAugmentWide` in torchvision.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

STRENGTHS = 31  # equally spaced, from nothing to the most


def trivial_augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uint8 image `[height, width, 3]` after one operation, sampled with strength and sign."""
    name = OPERATIONS[rng.integers(len(OPERATIONS))]
    share = rng.integers(STRENGTHS) / (STRENGTHS - 1)
    sign = 1 if rng.random() < 0.5 else -1
    return apply(name, image, share, sign)


def apply(name: str, image: np.ndarray, share: float, sign: int = 1) -> np.ndarray:
    """The image after an operation of strength `share`, from 0 to 1, of the most there is.

    Args:
      name: one of `OPERATIONS`.
      image: uint8 `[height, width, 3]`.
      share: of an operation that has no strength, without effect.
      sign: 1 or -1; the direction, of an operation that has one.
    """
    pillow = Image.fromarray(image)
    if name in MOVES:
        return np.asarray(_move(pillow, name, sign * share))
    if name in ENHANCERS:
        return np.asarray(ENHANCERS[name](pillow).enhance(1 + sign * 0.99 * share))
    return np.asarray(TONES[name](pillow, share))


def _move(image: Image.Image, name: str, share: float) -> Image.Image:
    """Sheared by up to 0.99, shifted by up to 32 pixels or the image, or rotated by up to 135°."""
    if name == "Rotate":
        return image.rotate(135 * share)
    shift = min(32, *image.size) * share
    shear = 0.99 * share
    matrix = {
        "ShearX": (1, -shear, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, -shear, 1, 0),
        "TranslateX": (1, 0, -round(shift), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -round(shift)),
    }[name]
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCERS = {
    "Brightness": ImageEnhance.Brightness,
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Sharpness": ImageEnhance.Sharpness,
}
TONES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda image, share: image,
    "Posterize": lambda image, share: ImageOps.posterize(image, 8 - round(6 * share)),
    "Solarize": lambda image, share: ImageOps.solarize(image, int(256 * (1 - share))),
    "AutoContrast": lambda image, share: ImageOps.autocontrast(image),
    "Equalize": lambda image, share: ImageOps.equalize(image),
}
OPERATIONS = (*MOVES, *ENHANCERS, *TONES)
