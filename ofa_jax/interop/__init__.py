"""The reference's files: weights and archs of the PyTorch package `ofa`."""

from ofa_jax.interop.catalogue import Published, published
from ofa_jax.interop.hub import from_pretrained, push_to_hub, save_pretrained
from ofa_jax.interop.net_config import arch_from_net_config
from ofa_jax.interop.once_for_all import from_once_for_all, to_once_for_all

__all__ = [
    "Published",
    "arch_from_net_config",
    "from_once_for_all",
    "from_pretrained",
    "published",
    "push_to_hub",
    "save_pretrained",
    "to_once_for_all",
]
