"""Encoded images to pixels: JPEG by libjpeg-turbo, everything else by OpenCV."""

import io
import os

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

LARGEST = 2**27  # pixels; damaged headers say any number, and memory is taken for them
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(LARGEST))  # read when it is imported
import cv2  # noqa: E402

from ofa_jax.errors import InputError, foreign  # noqa: E402
from ofa_jax.files import short  # noqa: E402

# Batches are made in parallel already; OpenCV's own threads would only fight over the cores.
cv2.setNumThreads(1)
# What it would say of a damaged image, an error of ours says.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"
READ = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # which it knows of some formats
EXIF, TIFF = (b"Exif\0\0", b"eXIf", b"EXIF"), (b"II*\0", b"MM\0*")
PNG = b"\x89PNG"
OPAQUE = (JPEG, b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")

# Which formats OpenCV was built with differs: its 4.11 reads neither AVIF nor GIF.
BY_OPENCV = (".bmp", ".png", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
             ".avif", ".gif")  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", *filter(cv2.haveImageWriter, BY_OPENCV))


def decode(image: bytes | np.ndarray) -> np.ndarray:
    """Pixels `[height, width, 3]` uint8 of an encoded image, or of an array of 1, 3 or 4 channels.

    Grayscale becomes three equal channels, and transparency is put on white, as a browser shows
    it. A photograph is turned as the camera was held: EXIF says how.

    Raises:
      ValueError: truncated or damaged bytes, an unknown format, more pixels than OpenCV takes, or
        an array that is no image; whatever a library raises becomes this.
    """
    if isinstance(image, np.ndarray):
        return _three_channels(image)
    with foreign(_reason):
        pixels = _decode_on_white(image)
        if pixels is None:
            pixels = _decode(image)
            if pixels is not None:
                pixels = _turned(pixels, _orientation(image))
    if pixels is None or pixels.ndim != 3:  # a matrix: of numbers, as PFM
        raise InputError("truncated, damaged or of a format OpenCV does not read")
    return pixels


def _reason(error: Exception) -> str:
    return short(f"OpenCV: {error.err}" if isinstance(error, cv2.error) else error)


def _decode(image: bytes) -> np.ndarray | None:
    if image[:2] == JPEG:
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(image)
            _check_size(height, width)
            return simplejpeg.decode_jpeg(image, "RGB")
        except ValueError as error:
            # Stray bytes between complete parts lose no pixel, and ImageNet has such files.
            if "extraneous bytes" not in str(error) or JPEG_END not in image[-64:]:
                raise
    return cv2.imdecode(np.frombuffer(image, np.uint8), READ) if image else None


def _check_size(height: int, width: int) -> None:
    if height * width > LARGEST:
        raise InputError(f"{height} x {width} pixels: expected at most {LARGEST:,}")


def _decode_on_white(image: bytes) -> np.ndarray | None:
    """An image with transparency, turned; None of any other. OpenCV drops some formats' alpha."""
    if image.startswith(OPAQUE) or (image.startswith(PNG) and not _png_has_alpha(image)):
        return None  # Pillow says so too, and takes as long as OpenCV to read a small image
    try:
        opened = Image.open(io.BytesIO(image))
    except UnidentifiedImageError:
        return None  # OpenCV reads more formats
    with opened:
        if not opened.has_transparency_data or opened.mode.startswith(("I", "F")):
            return None
        _check_size(opened.height, opened.width)
        return _on_white(ImageOps.exif_transpose(opened).convert("RGBA"))


def _on_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image).convert("RGB"))  # one that can be written


def _png_has_alpha(image: bytes) -> bool:
    colour_type = image[25:26]
    return colour_type in (b"\4", b"\6") or b"tRNS" in image[: image.find(b"IDAT")]


def _orientation(image: bytes) -> int:
    """What EXIF says and OpenCV leaves undone, 1 to 8; 1 is nothing."""
    # Pillow takes as long for this as libjpeg for a small image.
    if image[:4] in TIFF or not any(mark in image for mark in EXIF):
        return 1
    with Image.open(io.BytesIO(image)) as opened:
        return int(opened.getexif().get(ExifTags.Base.Orientation, 1))


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as they are to be seen. Source: `PIL.ImageOps.exif_transpose`."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _three_channels(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(f"{image.dtype} of shape {image.shape}: expected uint8, 1, 3 or 4 deep")
    if image.shape[2] == 4:
        return _on_white(Image.fromarray(image))
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image
