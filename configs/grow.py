"""Grow: a trained supernet in a larger space, here with one more block in every stage.

Every subnet of the old space computes what it did before the first step; the largest net learns to
use the new blocks in a short phase of its own, then teaches all other subnets.

    python main.py --config=configs/grow.py:runs/digits --workdir=runs/grown

After the colon: a run's workdir, a supernet's directory, one of `save_pretrained`, or a PyTorch
file of once-for-all; after a comma the budget in subnet passes over the images, such as
`runs/digits,36`. A run brings its data with it. For other new choices, such as a larger kernel,
change the space here.

Measured on two cores of an Intel Xeon, from the CIFAR-10 supernets at 16 px of docs/results.md
(three seeds), 9 subnet passes: 55.4, 58.7 and 64.8 % top-1 on test (smallest, mean of the grid,
largest), where the supernets had 54.4, 57.0 and 63.5. That was before training and test images
shrank by one filter, which has not been run here; nor has as long a training without growing.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults
from ofa_jax.run.fields import fields_of, searched_space
from ofa_jax.run.recipes import largest_of, recipe


def get_config(text: str = "runs/digits,18") -> ConfigDict:
    supernet, _, passes = text.partition(",")
    fields = fields_of(supernet)
    depths = searched_space(fields).depths
    fields["space"]["depths"] = (*depths, depths[-1] + 1)
    trained = recipe("transfer", float(passes or 18), 0.1, largest_of(searched_space(fields)))
    train = fields.get("train", {}) | trained.pop("train")
    return defaults(**fields | trained | {"train": train})
