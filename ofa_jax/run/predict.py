"""The predict command: classes and probabilities of image files, by a subnet's directory alone."""

import glob
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import checkpoint
from ofa_jax.errors import InputError
from ofa_jax.files import read_bytes, shown
from ofa_jax.names import local_path, printable
from ofa_jax.normalization import normalize_images
from ofa_jax.run.card import Card, read_card
from ofa_jax.run.data.decode import SUFFIXES, decode
from ofa_jax.run.data.image_files import counts, files_below, is_hidden, sort_out
from ofa_jax.run.data.transforms import resize_and_crop
from ofa_jax.run.metrics import counted

BATCH = 64


def predict(
    directory: Path, images: str, top: int = 5, *, strict: bool = False, as_json: bool = False
) -> None:
    """Prints the `top` classes of each image, one line an image, and their probabilities.

    Args:
      directory: a subnet's.
      images: a file, a directory of images or a pattern such as 'photos/*.jpg'.
      top: how many classes.
      strict: whether an image that cannot be read is an error; otherwise it is reported on standard
        error, skipped and counted.
      as_json: whether lines are JSON: {"image": path, "classes": {name: probability, ...}}.

    Raises:
      ValueError: an altered subnet, no image, or none that can be read.
    """
    card = read_card(directory)
    paths = find_images(images)
    subnet, variables = checkpoint.load_subnet(directory)
    if len(card.classes) != subnet.space.num_classes:
        raise InputError(
            f"{directory}: its card names {len(card.classes)} classes, its net has"
            f" {subnet.space.num_classes}"
        )
    apply = jax.jit(subnet.apply)
    read, size, steps = 0, min(BATCH, len(paths)), card.preprocessing
    for some in batched(readable(paths, card, strict), size):
        # The last batch is filled up: another size would compile again.
        pixels = np.stack([pixels for _, pixels in some])
        full = np.resize(pixels, (size, *pixels.shape[1:]))
        logits = apply(variables, normalize_images(jnp.asarray(full), steps.mean, steps.std))
        for (path, _), row in zip(some, np.asarray(jax.nn.softmax(logits)), strict=False):
            best = np.argsort(-row, stable=True)[:top]
            print(_line(path, {card.classes[i]: float(row[i]) for i in best}, as_json), flush=True)
        read += len(some)
    if not read:
        raise InputError(f"--images={shown(images)}: none of {counted(len(paths), 'image')} is one")
    if read < len(paths):
        print(f"{len(paths) - read} of {len(paths)} images skipped", file=sys.stderr)


def readable(paths: Sequence[Path], card: Card, strict: bool) -> Iterator[tuple[Path, np.ndarray]]:
    """The images that can be read, with their pixels; the others are reported, or raise."""
    for path in paths:
        try:
            yield path, read_image(path, card)
        except InputError as error:
            if strict:
                raise
            print(f"{error}: skipped", file=sys.stderr)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time; fewer at the end."""
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some


def _line(path: Path, classes: dict[str, float], as_json: bool) -> str:
    if as_json:
        return json.dumps({"image": printable(path), "classes": classes}, ensure_ascii=False)
    shares = "  ".join(f"{name} {share:.2%}" for name, share in classes.items())
    return f"{printable(path)}  {shares}"


def find_images(text: str) -> list[Path]:
    """The image files of a path or pattern, in order; what is left out is counted on stderr."""
    path = local_path("--images", text)
    if text and path.is_file():
        return [path]
    among = files_below(path) if path.is_dir() else matching(path)
    images, left_out = sort_out(among if text else ())
    if not images:
        raise InputError(
            f"--images={shown(text)}: expected image files ({' '.join(SUFFIXES)}), a directory or a"
            f" pattern, found {counts(left_out) or 'nothing'}"
        )
    if left_out:
        print(f"left out: {counts(left_out)}", file=sys.stderr)
    return images


def matching(pattern: Path) -> list[Path]:
    """What a pattern matches, ** at any depth, but for hidden folders that it does not name."""
    found = map(Path, glob.glob(str(pattern), recursive=True))
    return [
        path
        for path in found
        if not any(is_hidden(part) for part in path.parts[:-1] if part not in pattern.parts)
    ]


def read_image(path: Path, card: Card) -> np.ndarray:
    """The pixels of one file as the net's preprocessing makes them, uint8."""
    try:
        pixels = decode(read_bytes(path))
    except InputError as error:
        raise InputError(f"image {printable(path)} cannot be read: {error}") from error
    return resize_and_crop(pixels, card.resolution, card.preprocessing.center_crop)
