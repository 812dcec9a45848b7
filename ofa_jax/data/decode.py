"""Encoded images to pixels: JPEG by libjpeg-turbo, everything else by OpenCV."""

import cv2
import numpy as np
import simplejpeg

# Batches are made in parallel already; OpenCV's own threads would only fight over the cores.
cv2.setNumThreads(1)

JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"
READ = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # as Pillow, torchvision and tfds read


def decode(image: bytes | np.ndarray) -> np.ndarray:
    """Pixels `[height, width, 3]` uint8 of an encoded image, or of an array of 1, 3 or 4 channels.

    Grayscale becomes three equal channels, transparency is dropped.

    Raises:
      ValueError: truncated or damaged bytes, an unknown format, or an array that is no image.
    """
    if isinstance(image, np.ndarray):
        return _three_channels(image)
    if image[:2] == JPEG:
        try:
            return simplejpeg.decode_jpeg(image, "RGB")
        except ValueError as error:
            # Stray bytes between complete parts lose no pixel, and ImageNet has such files.
            if "extraneous bytes" not in str(error) or JPEG_END not in image[-64:]:
                raise
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), READ) if image else None
    if pixels is None:
        raise ValueError("truncated, damaged or of a format OpenCV does not read")
    return pixels


def _three_channels(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError(f"{image.dtype} of shape {image.shape}: expected uint8, 1, 3 or 4 deep")
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3]
