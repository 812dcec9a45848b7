"""Image transforms: on uint8 NumPy images on the host, normalisation on the device.

Sources: `torchvision.transforms`, as the reference's `ImagenetDataProvider` puts them together.
"""

import math
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from ofa_jax.run.data.trivial_augment import trivial_augment
from ofa_jax.run.groups.data import AugmentConfig, DataConfig

STRIP = 64  # times its shorter side that the longer one is looked at
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's grayscale


def augment(
    image: np.ndarray, size: int, config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """The training transforms: a random crop as `[size, size, 3]`, a flip, colours, erasing."""
    if config.crop == "resized":
        image = random_resized_crop(image, size, config.area, config.aspect, rng)
    else:
        image = random_shift(resize(center_square(image), size), config.pad, rng)
    if config.flip and rng.random() < config.flip:
        image = cv2.flip(image, 1)
    if config.brightness or config.saturation:
        image = jitter(image, config.brightness, config.saturation, rng)
    if config.policy == "trivial":
        image = trivial_augment(image, rng)
    if config.erase and rng.random() < config.erase:
        image = erase(image, rng)
    return image


def random_resized_crop(
    image: np.ndarray,
    size: int,
    area: tuple[float, ...],
    aspect: tuple[float, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """A random box of the image, resized to `[size, size, 3]`."""
    top, left, height, width = random_box(image.shape[0], image.shape[1], area, aspect, rng)
    return resize(image[top : top + height, left : left + width], size)


def random_box(
    height: int,
    width: int,
    area: tuple[float, ...],
    aspect: tuple[float, ...],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels: a share of the area, a log-uniform width over height.

    After ten boxes that do not fit, the largest central one of an allowed aspect. Source:
    `RandomResizedCrop.get_params` of torchvision.
    """
    logs = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(10):
        target = height * width * rng.uniform(area[0], area[1])
        ratio = math.exp(rng.uniform(logs[0], logs[1]))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def random_shift(image: np.ndarray, pad: float, rng: np.random.Generator) -> np.ndarray:
    """Pads with zeros by `pad` of the size on every side and crops a random window back."""
    margin = round(pad * image.shape[0])
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    top, left = rng.integers(0, 2 * margin + 1, size=2)
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def jitter(
    image: np.ndarray, brightness: float, saturation: float, rng: np.random.Generator
) -> np.ndarray:
    """Scales brightness and saturation by factors sampled from 1 - b .. 1 + b and 1 - s .. 1 + s.

    Both as one matrix, so nothing is clipped or rounded in between, unlike `ColorJitter` of
    torchvision. "tf" in the reference is brightness 32 / 255 and saturation 0.5.
    """
    bright = rng.uniform(max(0.0, 1 - brightness), 1 + brightness)
    colour = rng.uniform(max(0.0, 1 - saturation), 1 + saturation)
    matrix = bright * (colour * np.eye(3) + (1 - colour) * LUMA)
    return cv2.transform(image, matrix.astype(np.float32))


def erase(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with noise in a random box of 2 to 33 % of its area."""
    rows, columns = image.shape[:2]
    top, left, height, width = random_box(rows, columns, (0.02, 0.33), (0.3, 3.3), rng)
    erased = image.copy()
    box = erased[top : top + height, left : left + width]
    box[:] = rng.integers(0, 256, box.shape, np.uint8)
    return erased


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[height, width, 3]` to `[size, size, 3]`, for training.

    By evaluation's filter: a network that learnt from images of another one lost up to nine points
    of top-1 where they shrink to half their size. Enlarging, OpenCV differs by one level of 255 at
    most, and is many times as fast.
    """
    if max(image.shape[:2]) > size:
        return _resize(image, size, size)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """By Pillow's antialiased bilinear filter, which the reference has, in training too."""
    if image.shape[:2] == (height, width):
        return image
    resample = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


def center_square(image: np.ndarray) -> np.ndarray:
    """The largest central square."""
    side = min(image.shape[:2])
    return center_crop(image, side)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central `[size, size, 3]`, rounded as torchvision rounds it."""
    top, left = round((image.shape[0] - size) / 2), round((image.shape[1] - size) / 2)
    return image[top : top + size, left : left + size]


def resize_and_crop(image: np.ndarray, size: int, share: float) -> np.ndarray:
    """The evaluation transform: the shorter side to `ceil(size / share)`, the centre of `size`.

    Pillow's bilinear filter, so equal to the reference's pixel for pixel.
    """
    image = _centre_of_strip(image)
    short, height, width = math.ceil(size / share), *image.shape[:2]
    if height <= width:
        image = _resize(image, int(short * width / height), short)
    else:
        image = _resize(image, short, int(short * height / width))
    return center_crop(image, size)


def _centre_of_strip(image: np.ndarray) -> np.ndarray:
    """The centre of an image that is a strip; any other as it is.

    Resized as a whole, a strip of 1 x 65,500 pixels would take 10 GB for what is then cropped away.
    """
    height, width = (min(side, STRIP * min(image.shape[:2])) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def other_normalization(theirs: Mapping[str, tuple[float, ...]], data: DataConfig) -> str:
    """How a network's own mean and std differ from the config's; "" where they do not."""
    ours = {"mean": data.mean, "std": data.std}
    different = [
        f"data.{field}={ours[field]}, not {tuple(value)}"
        for field, value in theirs.items()
        if field in ours and tuple(value) != ours[field]
    ]
    return " and ".join(different)
