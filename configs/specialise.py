"""Specialise: from a trained supernet to a subnet for your device, without training the supernet.

The second half of Cai et al. 2020 (arXiv 1908.09791): evaluate the supernet, search it, extract
the winners, fine-tune one and export it. The supernet is only read.

    python main.py --config=configs/specialise.py:runs/digits --workdir=runs/specialised

After the colon: a run's workdir, a supernet's directory, one of `save_pretrained`, or a PyTorch
file of once-for-all. A run brings its data with it; for the others, `--config.data.name=...` names
the images. `--config.search.constraints='(30e6,)'` gives a budget.

Measured on two cores of an Intel Xeon, from the CIFAR-10 supernets at 16 px of docs/results.md
(three seeds): the searched subnets that it fine-tuned (3.2M to 4.2M MACs, where the largest has
7.5M and 63.5 % top-1 on test) went from 62.4 % as extracted to 67.5 % in 25 epochs. A run took
20 minutes, 14 of them fine-tuning. That was before training and test images shrank by one filter.
tests/test_from_pytorch.py takes it to its end from a PyTorch file at 224 px.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults
from ofa_jax.run.fields import fields_of


def get_config(supernet: str = "runs/digits") -> ConfigDict:
    return defaults(**fields_of(supernet) | {"curriculum": (), "phases": {}})
