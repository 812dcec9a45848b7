"""A search's functions, scores and costs: checks, values, and the cheapest subnets.

A compiled search takes its functions as pytrees: their arrays are arguments of the program. A new
predictor of the same shape is thus no new compilation, and no program keeps an old one's weights.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax.errors import InputError
from ofa_jax.search.genes import Genome
from ofa_jax.space import Arch

Function = Callable[[Arch, Any], Any]  # (arch, resolution) -> scalar, pure


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    """A function that is part of the program: compared by its arguments, as a `partial` is not."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    keywords: frozenset[tuple[str, Any]] = frozenset()

    def __call__(self, arch: Arch, resolution: Any) -> Any:
        """What the function gives."""
        return self.function(*self.args, arch, resolution, **dict(self.keywords))


def as_pytree(function: Function) -> Function:
    """The function as a pytree of arrays, to be an argument of a compiled search.

    A pytree whose leaves are arrays, such as a `Predictor` or a `jax.tree_util.Partial`, is one
    already. Any other function has no leaves. A `functools.partial` equals another of the same
    function and arguments, if these can be hashed; what else there is equals itself alone.
    """
    if all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(function)):
        return function
    if isinstance(function, functools.partial):
        static = Static(function.func, function.args, frozenset(function.keywords.items()))
        with contextlib.suppress(TypeError):  # an argument that cannot be hashed
            hash(static)
            return static
    return Static(function)


def check_functions(genome: Genome, functions: dict[str, Function]) -> None:
    """Raises `ValueError` unless each function gives one number for the ends of the space.

    They may refuse a resolution themselves.
    """
    for name, function in functions.items():
        for resolution in genome.resolutions:
            for arch in (genome.space.smallest(), genome.space.largest()):
                value = np.asarray(function(arch, resolution))
                if value.ndim or not np.isfinite(value):
                    raise InputError(f"{name} {name_of(function)} gives {value} at {resolution} px:"
                                     " expected one finite number")  # fmt: skip


def name_of(function: Function) -> str:
    """How messages call a function."""
    return getattr(function, "__name__", type(function).__name__)


def feasible(genome: Genome, costs: tuple[Function, ...], limits: np.ndarray) -> np.ndarray:
    """`[constraints, genes]`: a subnet within each of the constraints `[constraints, costs]`.

    Raises:
      ValueError: there is none, naming the cheapest subnet and its cost.
    """
    # With one cost the cheapest subnet is the same for all constraints, infinite ones too.
    bounds = np.zeros((1, 1)) if len(costs) == 1 else limits
    trees = tuple(map(as_pytree, costs))
    subnets = np.asarray(cheapest(genome, trees, bounds.astype(np.float32)))
    subnets = np.broadcast_to(subnets, (len(limits), genome.length))
    for genes, limit in zip(subnets, limits, strict=True):
        spent = exactly(genome, costs, genes)
        if (spent > limit).any():
            arch, resolution = genome.decode(jnp.asarray(genes))
            bound, least = (
                float(v[0]) if len(costs) == 1 else tuple(v.tolist()) for v in (limit, spent)
            )
            raise InputError(
                f"constraint {bound} cannot be met: the least is {least}, of"
                f" {genome.space.arch_to_dict(arch)} at {int(resolution)} px"
            )
    return subnets


def exactly(genome: Genome, functions: tuple[Function, ...], genes: Any) -> np.ndarray:
    """The functions' values outside of any transformation, where they are exact."""
    arch, resolution = genome.decode(jnp.asarray(genes))
    return np.asarray([float(f(arch, int(resolution))) for f in functions])


@functools.partial(jax.jit, static_argnums=0)
def cheapest(genome: Genome, costs: tuple[Function, ...], limits: jax.Array) -> jax.Array:
    """`[constraints, genes]`: what exceeds (or undercuts) each of the limits by least (by most).

    Descends from the smallest arch at each resolution, one choice after the other.
    """
    where, choices = genome.neighbours()
    starts = jnp.stack([genome.encode(genome.space.smallest(), r) for r in genome.options[-1]])

    def descend(excess: Callable[[jax.Array], jax.Array], start: jax.Array) -> Any:
        def better(state: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
            genes, least, _ = state
            tried = jnp.tile(genes, (len(where), 1)).at[np.arange(len(where)), where].set(choices)
            excesses = jax.vmap(excess)(tried)
            i = jnp.argmin(excesses)
            improved = excesses[i] < least
            genes = jnp.where(improved, tried[i], genes)
            return genes, jnp.minimum(excesses[i], least), improved

        began = (start, excess(start), jnp.asarray(True))
        return jax.lax.while_loop(lambda state: state[2], better, began)[:2]

    scale = jnp.abs(values(genome, costs, starts[0])) + 1e-30

    def of_limit(limit: jax.Array) -> jax.Array:
        def excess(genes: jax.Array) -> jax.Array:
            return ((values(genome, costs, genes) - limit) / scale).max()

        ends, least = jax.vmap(functools.partial(descend, excess))(starts)
        return ends[jnp.argmin(least)]

    return jax.vmap(of_limit)(limits)


def values(genome: Genome, functions: tuple[Function, ...], genes: jax.Array) -> jax.Array:
    """`[functions]` float32 of one vector of genes."""
    arch, resolution = genome.decode(genes)
    return jnp.stack([jnp.asarray(f(arch, resolution), jnp.float32) for f in functions])
