"""Once-for-All training in JAX: train one network, cut any of 10^19 out of it."""

from ofa_jax import interop, search
from ofa_jax.checkpoint import load_subnet, load_supernet
from ofa_jax.errors import InputError
from ofa_jax.interop import published
from ofa_jax.models import build_supernet
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import get_space, list_spaces
from ofa_jax.subnets.calibrate import calibrate
from ofa_jax.subnets.extract import extract
from ofa_jax.subnets.latency import build_latency_table
from ofa_jax.train.phases import Phase
from ofa_jax.train.sort_width import sort_width

__version__ = "0.1.0"
__all__ = [
    "Arch",
    "InputError",
    "Phase",
    "SearchSpace",
    "build_latency_table",
    "build_supernet",
    "calibrate",
    "extract",
    "get_space",
    "interop",
    "list_spaces",
    "load_subnet",
    "load_supernet",
    "macs",
    "params",
    "published",
    "search",
    "sort_width",
]
