"""The predict command: classes and probabilities of image files, by a subnet's directory alone."""

import glob
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import checkpoint
from ofa_jax.data.decode import decode
from ofa_jax.data.transforms import normalize_images, resize_and_crop
from ofa_jax.subnets.card import Card, read_card

BATCH = 64
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


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
            print(f"{path}  {told}", flush=True)


def find_images(text: str) -> list[Path]:
    """The image files that a path or pattern means, in order of their names."""
    path = Path(text)
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES]
    else:
        found = [path] if path.is_file() else [Path(name) for name in glob.glob(text)]
    if not text or not found:
        raise ValueError(f"--images={text!r}: expected image files, a directory or a pattern")
    return sorted(found)


def read_image(path: Path, card: Card) -> np.ndarray:
    """The pixels of one file as the net's preprocessing makes them, uint8."""
    try:
        pixels = decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"image {path} cannot be read: {error}") from error
    return resize_and_crop(pixels, card.resolution, card.preprocessing.center_crop)
