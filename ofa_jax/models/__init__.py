"""Old place of `network`."""

from ofa_jax.network import Network, best_compute, build_subnet, build_supernet, is_supernet

__all__ = ["Network", "best_compute", "build_subnet", "build_supernet", "is_supernet"]
