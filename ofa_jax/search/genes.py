"""A subnet at a resolution as one vector of genes, and how such vectors vary.

A search moves over `[genes]` int32 vectors: the choice indices of an `Arch`, one field after the
other, then the index of the resolution. Everything here is for one vector; `vmap` does the rest.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.space import Arch, SearchSpace

HALF = 1 << 16  # a random word: which way it falls in the upper half, a choice in the lower one


@dataclasses.dataclass(frozen=True)
class Genome:
    """The genes of a space at some resolutions (pixels)."""

    space: SearchSpace
    resolutions: tuple[int, ...]

    def __post_init__(self) -> None:
        values = self.resolutions
        if not values or list(values) != sorted(set(values)) or values[0] < 1:
            raise InputError(f"resolutions={values}: expected ascending pixels")

    @functools.cached_property
    def options(self) -> tuple[tuple[int, ...], ...]:
        """What each gene may be, ascending."""
        with jax.ensure_compile_time_eval():
            opened = self.space.open_genes(self.space.open_choices())
        rows = [
            row for field in self.space.dimensions for row in np.asarray(getattr(opened, field))
        ]
        return (*(tuple(np.flatnonzero(row).tolist()) for row in rows),
                tuple(range(len(self.resolutions))))  # fmt: skip

    @property
    def length(self) -> int:
        """The number of genes."""
        return len(self.options)

    def encode(self, arch: Arch, resolution: Any) -> jax.Array:
        """The genes of one arch at the resolution of this index."""
        fields = [getattr(arch, field) for field in self.space.dimensions]
        return jnp.concatenate([*fields, jnp.asarray([resolution], jnp.int32)])

    def decode(self, genes: jax.Array) -> tuple[Arch, jax.Array]:
        """The arch, whose skipped blocks have choice 0, and its resolution in pixels."""
        fields, start = {}, 0
        for field, dimension in self.space.dimensions.items():
            fields[field] = genes[start : start + len(dimension.values)]
            start += len(dimension.values)
        active = jnp.asarray(self.space.active(fields["depth"]))
        for field in ("kernel", "expand"):
            fields[field] = jnp.where(active, fields[field], 0)
        return Arch(**fields), jnp.asarray(self.resolutions, jnp.int32)[genes[-1]]

    def fingerprint(self, genes: jax.Array) -> jax.Array:
        """A uint32 that equal subnets share, whatever the genes of their skipped blocks."""
        arch, resolution = self.decode(genes)
        canonical = self.encode(arch, resolution).astype(jnp.uint32)
        weights = np.random.default_rng(0).integers(1 << 32, size=self.length, dtype=np.uint32)
        mixed = (canonical + 1) * weights
        return jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32)

    def draw(self, words: jax.Array) -> jax.Array:
        """Uniform genes from `[genes]` random uint32 words."""
        table, counts = self._options
        picked = (words % HALF) % counts
        return jnp.asarray(table)[np.arange(self.length), picked.astype(jnp.int32)]

    @functools.cached_property
    def _options(self) -> tuple[np.ndarray, np.ndarray]:
        counts = np.asarray([len(options) for options in self.options], np.uint32)
        widest = counts.max()
        rows = [[*options, *[0] * (widest - len(options))] for options in self.options]
        return np.asarray(rows, np.int32), counts

    def mutate(self, words: jax.Array, genes: jax.Array, rate: float) -> jax.Array:
        """Each gene resampled with probability `rate`; `words` are `[genes]` random uint32."""
        return jnp.where(_chance(words, rate), self.draw(words), genes)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """`[n]` genes and `[n]` values: every single choice, to be set in a vector."""
        pairs = [(g, value) for g, options in enumerate(self.options) for value in options]
        where, values = np.asarray(pairs, np.int32).T
        return where, values


def crossover(words: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Each gene of either parent with equal chances; `words` are `[genes]` random uint32."""
    return jnp.where(_chance(words, 0.5), first, second)


def _chance(words: jax.Array, probability: Any) -> jax.Array:
    return (words // HALF).astype(jnp.float32) < probability * HALF


def repeated(prints: jax.Array) -> jax.Array:
    """`[n]` booleans, whether an earlier one of `[n]` fingerprints is the same."""
    earlier = np.tri(len(prints), k=-1, dtype=bool)
    return ((prints[:, None] == prints[None, :]) & earlier).any(1)
