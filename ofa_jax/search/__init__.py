"""Which subnet for a budget: costs, predictors, evolution under constraints, the whole front."""

from ofa_jax.search.evolution import Found, evolve
from ofa_jax.search.front import Front, best_within, find_front
from ofa_jax.search.latency import LatencyTable, load_latency_table
from ofa_jax.search.predictor import Predictor, load_predictor

__all__ = [
    "Found",
    "Front",
    "LatencyTable",
    "Predictor",
    "best_within",
    "evolve",
    "find_front",
    "load_latency_table",
    "load_predictor",
]
