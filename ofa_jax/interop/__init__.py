"""The reference's files: weights of the PyTorch package `ofa`."""

from ofa_jax.interop.once_for_all import from_once_for_all, to_once_for_all

__all__ = ["from_once_for_all", "to_once_for_all"]
