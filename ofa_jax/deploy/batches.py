"""Images in batches of one size, for files that take no other."""

from collections.abc import Callable, Iterable

import numpy as np

Call = Callable[[np.ndarray], np.ndarray]


def in_batches(call: Call, size: int) -> Call:
    """A function of any number of images, by one of `size` images."""

    def all_of(images: np.ndarray) -> np.ndarray:
        return np.concatenate([call(part) for part in filled(images, size)])[: len(images)]

    return all_of


def of_size(batches: Iterable[np.ndarray], size: int | None) -> Iterable[np.ndarray]:
    """The same images, `size` at a time where that is fixed."""
    for images in batches:
        yield from [images] if size is None else filled(images, size)


def filled(images: np.ndarray, size: int) -> list[np.ndarray]:
    """Images in parts of `size`; the last is filled up with the first images."""
    count = -(-len(images) // size)
    return np.split(np.resize(images, (count * size, *images.shape[1:])), count)
