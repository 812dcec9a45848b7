"""Specialise: from a trained supernet to a subnet for your device, without training the supernet.

The second half of Cai et al. 2020 (arXiv 1908.09791): evaluate the supernet, search it, extract
the winners, fine-tune one and export it. The supernet is only read.

    python main.py --config=configs/specialise.py:runs/digits --workdir=runs/specialised

After the colon: a run's workdir, a supernet's directory, one of `save_pretrained`, or a PyTorch
file of once-for-all. A run brings its data with it; for the others, `--config.data.name=...` names
the images. `--config.search.constraints='(30e6,)'` gives a budget.

No accuracy has been measured with it yet. tests/run/test_fields.py takes it to its end from a
small run on the digits, tests/test_from_pytorch.py from random weights on Imagenette at 224 px.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults
from ofa_jax.run.fields import fields_of


def get_config(supernet: str = "runs/digits") -> ConfigDict:
    return defaults(**fields_of(supernet) | {"curriculum": (), "phases": {}})
