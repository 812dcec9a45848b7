"""Transfer: from a trained supernet to one of your own classes, and on to a subnet of it.

The largest net learns the new classes in a short phase of its own, then teaches all other subnets;
evaluation, search, extraction, fine-tuning and export follow, as in configs/specialise.py.

    python main.py --config=configs/transfer.py:runs/cifar10_16 --workdir=runs/mine \
        --config.data.name=/data/birds

After the colon: a run's workdir, a supernet's directory, one of `save_pretrained`, or a PyTorch
file of once-for-all; after a comma the budget in subnet passes over the images, such as
`runs/cifar10_16,36`. Images have the sizes and the normalisation of the supernet's; how they are
varied is `data.augment`. Without a `data.name` the new images are scikit-learn's digits.

Measured by benchmarks/transfer.py on a core of an Intel Xeon, from CIFAR-10 at 16 px to 2,140 grey
photographs of ten other classes, three seeds: 47.3, 48.6 and 53.1 % top-1 on test (smallest, mean,
largest) at 9 subnet passes, where 36 from random weights give 48.1, 46.3 and 49.9;
docs/results.md has the others.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults
from ofa_jax.run.fields import IMAGES, fields_of, searched_space
from ofa_jax.run.recipes import largest_of, recipe


def get_config(text: str = "runs/cifar10_16,18") -> ConfigDict:
    supernet, _, passes = text.partition(",")
    fields = fields_of(supernet)
    images = {field: value for field, value in fields["data"].items() if field in IMAGES}
    trained = recipe("transfer", float(passes or 18), 0.1, largest_of(searched_space(fields)))
    train = fields.get("train", {}) | trained.pop("train")
    return defaults(**fields | trained | {"data": images, "train": train})
