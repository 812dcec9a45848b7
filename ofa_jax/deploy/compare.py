"""How near an exported file comes to its subnet: the logits' difference, noise and top-1."""

import itertools
from collections.abc import Iterable

import numpy as np

from ofa_jax.deploy.batches import Call
from ofa_jax.errors import InputError

TOLERANCE = 1e-4  # of the largest logit, float32: what a subnet and its files may differ by
# Decibels of the logits' signal over their noise. Rounding to float16 leaves 50 and more, to int8
# 20 to 40; at 10 the noise has a third of the logits' size, and something is broken.
LEAST_SNR = {"float16": 40.0, "int8": 10.0}


def compare(
    call: Call, images: np.ndarray, wanted: np.ndarray, name: str, precision: str = "float32"
) -> float:
    """The largest difference of a file's logits, over the largest; at batch 1, 7 and all.

    Raises:
      ValueError: it is above `TOLERANCE`, or the noise of another precision above its limit.
    """
    batches = [images[i : i + 1] for i in range(min(len(images), 8))]
    pairs = [
        (np.concatenate([call(batch) for batch in batches]), wanted[: len(batches)]),
        (call(images[:7]), wanted[:7]),
        (call(images), wanted),
    ]
    worst = max(difference(*pair) for pair in pairs)
    if precision == "float32":
        if not worst <= TOLERANCE:
            raise InputError(
                f"the {name} file's logits differ from the subnet's by {worst:.1e} of the largest:"
                f" expected at most {TOLERANCE:.0e}; it is not kept"
            )
    elif not (least := min(snr(*pair) for pair in pairs)) >= LEAST_SNR[precision]:
        raise InputError(
            f"the {name} file's logits have {least:.1f} dB over their noise: expected at least"
            f" {LEAST_SNR[precision]:.0f}; it is not kept"
        )
    return worst


def difference(logits: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, as a share of the largest of what is wanted."""
    return float(np.abs(logits - wanted).max() / np.abs(wanted).max())


def snr(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Signal over noise in decibels: the mean square of `wanted` over that of the differences."""
    noise = max(float(np.square(logits - wanted).mean()), float(np.finfo(np.float32).tiny))
    return float(10 * np.log10(np.square(wanted).mean() / noise))


def accuracy(call: Call, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """{"top1"} of a file over labelled batches."""
    hits = list(itertools.chain(*(call(x).argmax(-1) == labels for x, labels in batches)))
    return {"top1": float(np.mean(hits))}
