"""The predict command: classes and probabilities of image files, by a subnet's directory alone."""

import glob
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import checkpoint
from ofa_jax.data.decode import SUFFIXES, decode
from ofa_jax.data.image_files import counts, files_below, sort_out
from ofa_jax.data.transforms import normalize_images, resize_and_crop
from ofa_jax.files import read_bytes, shown
from ofa_jax.names import local_path, printable
from ofa_jax.subnets.card import Card, read_card

BATCH = 64


def predict(directory: Path, images: str, top: int = 5) -> None:
    """Prints the `top` classes of each image, one line an image, and their probabilities.

    Args:
      directory: a subnet's.
      images: a file, a directory of images or a pattern such as 'photos/*.jpg'.
      top: how many classes.

    Raises:
      ValueError: an altered subnet, no image, or one that cannot be read.
    """
    card = read_card(directory)
    paths = find_images(images)
    subnet, variables = checkpoint.load_subnet(directory)
    if len(card.classes) != subnet.space.num_classes:
        raise ValueError(
            f"{directory}: its card names {len(card.classes)} classes, its net has"
            f" {subnet.space.num_classes}"
        )
    apply = jax.jit(subnet.apply)
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        pixels = np.stack([read_image(path, card) for path in some])
        # The last batch is filled up: another size would compile again.
        full = np.resize(pixels, (min(BATCH, len(paths)), *pixels.shape[1:]))
        steps = card.preprocessing
        logits = apply(variables, normalize_images(jnp.asarray(full), steps.mean, steps.std))
        for path, row in zip(some, np.asarray(jax.nn.softmax(logits)), strict=False):
            best = np.argsort(-row, stable=True)[:top]
            told = "  ".join(f"{card.classes[i]} {row[i]:.2%}" for i in best)
            print(f"{printable(path)}  {told}", flush=True)


def find_images(text: str) -> list[Path]:
    """The image files that a path or pattern means, in order; those left out are told on stderr."""
    path = local_path("--images", text)
    if text and path.is_file():
        return [path]
    among = files_below(path) if path.is_dir() else map(Path, glob.glob(str(path)))
    images, left_out = sort_out(among if text else ())
    if not images:
        raise ValueError(
            f"--images={shown(text)}: expected image files ({' '.join(SUFFIXES)}), a directory or a"
            f" pattern, found {counts(left_out) or 'nothing'}"
        )
    if left_out:
        print(f"left out: {counts(left_out)}", file=sys.stderr)
    return images


def read_image(path: Path, card: Card) -> np.ndarray:
    """The pixels of one file as the net's preprocessing makes them, uint8."""
    try:
        pixels = decode(read_bytes(path))
    except ValueError as error:
        raise ValueError(f"image {printable(path)} cannot be read: {error}") from error
    return resize_and_crop(pixels, card.resolution, card.preprocessing.center_crop)
