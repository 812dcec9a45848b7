"""Known ways to train a supernet, as fields of a config: its curriculum, phases and schedule.

Each is stretched to a budget of subnet passes: forward and backward of one subnet on each training
image; a teacher's forward counts as a third.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ofa_jax.errors import InputError
from ofa_jax.space import SearchSpace

Fields = dict[str, Any]
SANDWICH = 4  # subnets of a step: the largest, the smallest and two random ones
HALVES = 3  # those of `halves`, with one random one


def recipe(name: str, passes: float, lr: float, largest: Mapping[str, tuple[float, ...]]) -> Fields:
    """The config's fields for a recipe; `configs/cifar10_16.py` shows how they are used.

    Args:
      name: one of `RECIPES`.
      passes: the budget, in subnet passes over the training images.
      lr: the highest learning rate.
      largest: the choices that leave the largest net alone, as {"kernels": (7,), ...}.

    Raises:
      ValueError: no recipe of that name.
    """
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name](passes, lr, dict(largest))


def progressive_shrinking(passes: float, lr: float, largest: Fields) -> Fields:
    """The paper's: the largest net, then kernel, depth and expand ratio, a cosine for each.

    Lengths and rates are in the proportions of the reference's run on ImageNet: 180 epochs, then
    120, 25, 120, 25 and 120. Source: Cai et al. 2020, arXiv 1908.09791.
    """
    epoch = passes / (180 + 120 * 4 / 3 + 145 * 7 / 3 + 145 * 13 / 3)
    opened = [{"expands": largest["expands"], "depths": largest["depths"]},
              {"expands": largest["expands"]}]  # fmt: skip
    two, four = {"subnets": 2}, {"subnets": 4}
    depth, expand = largest["depths"][-1], largest["expands"][-1]
    phases = {
        "full": {**largest, "distill": 0.0, "epochs": 180 * epoch, "lr": lr},
        "kernel": {**opened[0], "epochs": 120 * epoch, "lr": lr * 3 / 8},
        "depth1": {
            **opened[1], **two, "depths": (depth - 1, depth), "epochs": 25 * epoch, "lr": lr / 32,
        },
        "depth2": {**opened[1], **two, "epochs": 120 * epoch, "lr": lr * 3 / 32},
        "expand1": {
            **four, "expands": (4, expand), "epochs": 25 * epoch, "lr": lr / 32, "sort_width": True,
        },
        "expand2": {**four, "epochs": 120 * epoch, "lr": lr * 3 / 32, "sort_width": True},
    }  # fmt: skip
    return {"curriculum": tuple(phases), "phases": phases}


def one_shot(passes: float, lr: float, largest: Fields) -> Fields:
    """All subnets from the first step: the sandwich rule, distilled from the step's largest net.

    Sources: BigNAS, arXiv 2003.11142; AlphaNet, arXiv 2102.07954.
    """
    epochs = passes / SANDWICH
    warmup = 0.1 * epochs
    phase = {**_sandwich(lr), "epochs": epochs - warmup, "warmup_epochs": warmup}
    return {"curriculum": ("oneshot",), "phases": {"oneshot": phase}}


def delayed(passes: float, lr: float, largest: Fields) -> Fields:
    """The largest net alone for half the run, then the sandwich, whose others rise from 0 to 1.

    Widths are sorted once, shortly before; one cosine. Source: DepS, arXiv 2407.06167, whose ramp
    of 5 epochs is of a longer run: here it is a tenth of the second half at most.
    """
    epochs = passes / (0.5 + 0.5 * SANDWICH)
    warmup = 0.05 * epochs
    alone = {**largest, "distill": 0.0, "lr": lr}
    phases = {
        "full": {**alone, "epochs": 0.45 * epochs - warmup, "warmup_epochs": warmup},
        "sorted": {**alone, "epochs": 0.05 * epochs, "sort_width": True},
        "elastic": {
            **_sandwich(lr), "epochs": 0.5 * epochs, "ramp_epochs": min(5.0, 0.05 * epochs),
        },
    }  # fmt: skip
    return {"curriculum": tuple(phases), "phases": phases, "train": {"schedule": "run"}}


def single_path(passes: float, lr: float, largest: Fields) -> Fields:
    """One random subnet a step on labels alone for 60 % of the passes, then the sandwich in place.

    A step of one subnet costs a quarter of a sandwich's, so that the same passes hold 2.8 times the
    steps of one-shot training; one cosine. Sources: ours; of the first part, Guo et al. 2020, arXiv
    1904.00420.
    """
    single, sandwich = 0.6 * passes, 0.4 * passes / SANDWICH
    warmup = 0.05 * (single + sandwich)
    phases = {
        "single": {
            "distill": 0.0, "lr": lr, "epochs": single - warmup, "warmup_epochs": warmup,
        },
        "sandwich": {**_sandwich(lr), "epochs": sandwich},
    }  # fmt: skip
    return {"curriculum": tuple(phases), "phases": phases, "train": {"schedule": "run"}}


def halves(passes: float, lr: float, largest: Fields) -> Fields:
    """The largest net alone for half the cost, then the sandwich; one cosine by cost.

    As "delayed", whose halves are epochs: there the sandwich has four fifths of the cost, at four
    passes a step. Here the largest net alone has 2.5 times the steps, and then teaches two subnets
    a step instead of three, which learn from it alone. Source: ours.
    """
    alone, sandwich = 0.5 * passes, 0.5 * passes / HALVES
    warmup = alone / 16
    full = {**largest, "distill": 0.0, "lr": lr}
    phases = {
        "full": {**full, "epochs": 0.9 * alone - warmup, "warmup_epochs": warmup},
        "sorted": {**full, "epochs": 0.1 * alone, "sort_width": True},
        "elastic": {**_sandwich(lr), "subnets": HALVES, "labels": 0.0, "epochs": sandwich},
    }  # fmt: skip
    return {"curriculum": tuple(phases), "phases": phases, "train": {"schedule": "passes"}}


def transfer(passes: float, lr: float, largest: Fields) -> Fields:
    """From a trained supernet: the largest net alone for a quarter of the cost, then the sandwich.

    The largest net learns the new classes, or the new blocks, before it teaches them. Widths are
    not sorted: in a trained supernet they are in order. One cosine by cost. Source: ours.
    """
    alone, sandwich = 0.25 * passes, 0.75 * passes / SANDWICH
    warmup = 0.05 * (alone + sandwich)
    full = {**largest, "distill": 0.0, "lr": lr}
    phases = {
        "full": {**full, "epochs": alone - warmup, "warmup_epochs": warmup},
        "elastic": {**_sandwich(lr), "epochs": sandwich},
    }
    return {"curriculum": tuple(phases), "phases": phases, "train": {"schedule": "passes"}}


def largest_of(space: SearchSpace) -> Fields:
    """The choices that leave a space's largest net alone, for `recipe`."""
    return {
        field: getattr(space, field)[-1:] for field in ("kernels", "expands", "depths", "widths")
    }


def _sandwich(lr: float) -> Fields:
    return {"subnets": SANDWICH, "draw": "sandwich", "source": "largest", "lr": lr}


RECIPES: dict[str, Callable[[float, float, Fields], Fields]] = {
    "ps": progressive_shrinking,
    "oneshot": one_shot,
    "delayed": delayed,
    "single_path": single_path,
    "halves": halves,
    "transfer": transfer,
}
