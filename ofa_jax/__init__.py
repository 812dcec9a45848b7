"""Once-for-All training in JAX: train one network, cut any of 10^19 out of it."""

from ofa_jax import interop, search
from ofa_jax.checkpoint import load_subnet, load_supernet
from ofa_jax.errors import InputError
from ofa_jax.families import get_space, list_spaces
from ofa_jax.interop import published
from ofa_jax.network import build_supernet
from ofa_jax.normalization import Normalization, normalize_images
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.subnets.calibrate import calibrate
from ofa_jax.subnets.evaluate import evaluate
from ofa_jax.subnets.extract import extract
from ofa_jax.subnets.latency import build_latency_table
from ofa_jax.train.fit import fit
from ofa_jax.train.optimizer import adamw, sgd
from ofa_jax.train.phases import Phase, phase_data
from ofa_jax.train.sort_width import sort_width
from ofa_jax.train.step import Distillation, TrainState, init_state, make_train_step
from ofa_jax.version import __version__

__all__ = [
    "Arch",
    "Distillation",
    "InputError",
    "Normalization",
    "Phase",
    "SearchSpace",
    "TrainState",
    "__version__",
    "adamw",
    "build_latency_table",
    "build_supernet",
    "calibrate",
    "evaluate",
    "extract",
    "fit",
    "get_space",
    "init_state",
    "interop",
    "list_spaces",
    "load_subnet",
    "load_supernet",
    "macs",
    "make_train_step",
    "normalize_images",
    "params",
    "phase_data",
    "published",
    "search",
    "sgd",
    "sort_width",
]
