"""Recipes compared on two cores: CIFAR-10 at 16 px, 20,000 training images, the space of digits.py.

    python main.py --config=configs/cifar10_16.py:halves --workdir=runs/cifar10_16 \
        --config.data.data_dir=FOLDER

The word after the colon is a recipe of `ofa_jax/run/recipes.py`: "halves", "delayed",
"single_path", "oneshot" or "ps" (progressive shrinking); or "alone_smallest", "alone_middle",
"alone_largest": one arch from scratch, which sees the images as often as "halves" does. A number
after a comma is the budget in subnet passes over the images, such as `oneshot,288`.
`benchmarks/recipes.py` compares them. Measured on one core of an Intel Xeon, `halves,18`: 62.4,
64.6 and 72.0 % top-1 on test (smallest, mean, largest; three seeds). docs/results.md has the
others. The default of 72 passes has not been run.
"""

from typing import Any

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults
from ofa_jax.run.recipes import HALVES, recipe

SEEN = 0.5 + 0.5 / HALVES  # how often "halves" sees an image, for each subnet pass
LARGEST = {"kernels": (7,), "expands": (6,), "depths": (3,)}
ALONE: dict[str, dict[str, Any]] = {
    "alone_smallest": {"kernels": (3,), "expands": (3,), "depths": (1,)},
    "alone_middle": {"kernels": (5,), "expands": (4,), "depths": (2,)},
    "alone_largest": LARGEST,
}


def get_config(text: str = "halves") -> ConfigDict:
    name, _, budget = text.partition(",")
    passes = float(budget or 72)
    fields = alone(name, SEEN * passes) if name in ALONE else recipe(name, passes, 0.1, LARGEST)
    train = {"weight_decay": 5e-4, "checkpoint_steps": 1000} | fields.pop("train", {})
    return defaults(
        space={"name": "ofa_tiny_d123_e346_k357", "dropout": 0.1},
        data={
            "name": "cifar10", "batch_size": 64, "resolutions": (16,), "held_out": 2000,
            "train_split": "train[:22000]",
            "augment": {"crop": "pad", "pad": 0.125, "flip": 0.5},
            "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616),
        },
        train=train,
        **fields,
    )  # fmt: skip


def alone(name: str, epochs: float) -> dict[str, Any]:
    phase = ALONE[name] | {
        "distill": 0.0, "lr": 0.1, "epochs": 0.9 * epochs, "warmup_epochs": 0.1 * epochs,
    }  # fmt: skip
    return {"curriculum": (name,), "phases": {name: phase}}
