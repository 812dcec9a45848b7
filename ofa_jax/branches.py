"""Only the sampled variant is computed: a switch over those of a layer, each of its own size.

Masks compute the largest layer whatever is sampled. Here one compiled program holds every variant
and runs the sampled one. Equal layers at different places are traced once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ofa_jax import conv, elastic
from ofa_jax.space import Block

Tree = Any
B = TypeVar("B", bound=Block)


class Branch(NamedTuple):
    """A pure function: `function(*options, constants, *operands)` to a result and auxiliary output.

    The options are static, hence hashable; the others are traced.
    """

    function: Callable[..., tuple[jax.Array, Tree]]
    options: tuple[Any, ...]


def switch(
    branches: Sequence[Branch], choice: jax.Array, constants: Tree, *operands: Tree
) -> tuple[jax.Array, Tree]:
    """`lax.switch` over the branches, whose gradient reruns the selected one.

    Differentiated by itself a switch keeps the residuals of all its branches, most of them zeros.

    Args:
      branches: all give the same shapes.
      choice: int32 scalar, which of them.
      constants: arrays that are not differentiated.
      operands: arrays that the result is differentiated by; the auxiliary output is not.
    """

    @jax.custom_vjp
    def run(choice: jax.Array, constants: Tree, *operands: Tree) -> tuple[jax.Array, Tree]:
        runs = [functools.partial(_run, branch) for branch in branches]
        return lax.switch(choice, runs, constants, *operands)

    def forward(choice: jax.Array, constants: Tree, *operands: Tree) -> Any:
        return run(choice, constants, *operands), (choice, constants, operands)

    def backward(residuals: Any, cotangents: tuple[jax.Array, Tree]) -> Any:
        choice, constants, operands = residuals
        gradients = [functools.partial(_gradient, branch) for branch in branches]
        return None, None, *lax.switch(choice, gradients, cotangents[0], constants, *operands)

    run.defvjp(forward, backward)
    return run(choice, constants, *operands)


@functools.partial(jax.jit, static_argnums=0)
def _run(branch: Branch, constants: Tree, *operands: Tree) -> tuple[jax.Array, Tree]:
    return branch.function(*branch.options, constants, *operands)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(branch: Branch, cotangent: jax.Array, constants: Tree, *operands: Tree) -> Tree:
    def result(*operands: Tree) -> jax.Array:
        return branch.function(*branch.options, constants, *operands)[0]

    return jax.vjp(result, *operands)[1](cotangent)


# -- blocks ----------------------------------------------------------------------------------------


def sampled_block(
    network: nn.Module,
    variant: Callable[[B], nn.Module],
    block: B,
    choice: jax.Array,
    active: jax.Array | None,
    kernel: jax.Array | None,
    x: jax.Array,
    train: bool,
) -> jax.Array:
    """The output of a block's sampled variant, by the variables of the network that calls this.

    Differentiated by parameters and `x`; running statistics count as constants.

    Args:
      network: has the elastic block's variables, and receives the statistics that change.
      variant: makes the module of one of `block.variants`, which `choice` selects from.
      block: the elastic block.
      choice: int32 scalar, which of them.
      active: boolean scalar, false to pass `x` on unchanged; None where it is always true.
      kernel: int32 scalar, the index of the kernel size; None where there is none to choose.
      x: `[batch, height, width, channels]`, zero in the inactive ones.
      train: as in every block.

    Returns:
      `[batch, height, width, block.width]`, zero in the channels that the variant lacks.
    """
    mutable = network.is_mutable_collection
    collect = tuple(c for c in ("batch_stats", "moments") if train and mutable(c))
    params: Tree = network.get_variable("params", block.name)
    stats: Tree = network.get_variable("batch_stats", block.name)
    branches = [
        Branch(_run_variant, (variant(narrow), block.width, collect, train))
        for narrow in block.variants
    ]
    if active is not None:
        branches.insert(0, Branch(_skip, (collect,)))
        choice = jnp.where(active, choice + 1, 0)
    y, changed = switch(branches, choice, (kernel, stats), params, x)
    for collection, tree in changed.items():
        network.put_variable(collection, block.name, tree)
    return y


def _run_variant(
    layer: Any, width: int, collect: tuple[str, ...], train: bool, constants: tuple[Any, Tree],
    params: Tree, x: jax.Array,
) -> tuple[jax.Array, Tree]:  # fmt: skip
    """A variant's output, and what it changes of the collections, in the elastic block's shapes."""
    kernel, stats = constants
    x = x[..., : layer.block.in_width]
    variables = {"params": params, "batch_stats": stats}
    small = jax.tree.map(elastic.leading, _shapes(layer), variables)
    y, changed = layer.apply(small, x, kernel, None, None, train=train, mutable=collect)
    y = elastic.grow(y, jnp.zeros_like(y, shape=(*y.shape[:-1], width)))
    return y, jax.tree.map(elastic.grow, changed, _unchanged(collect, stats))


@functools.cache
def _shapes(layer: Any) -> Tree:
    """The shapes of a variant's variables."""
    pixel = jax.ShapeDtypeStruct((1, 1, 1, layer.block.in_width), jnp.float32)
    init = functools.partial(layer.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), pixel, jnp.int32(0), None, None)


def _skip(
    collect: tuple[str, ...], constants: tuple[Any, Tree], params: Tree, x: jax.Array
) -> tuple[jax.Array, Tree]:
    return x, _unchanged(collect, constants[1])


def _unchanged(collect: tuple[str, ...], stats: Tree) -> Tree:
    """The collections as they are where no channel is active."""
    whole = {"batch_stats": stats, "moments": _no_moments(stats)}
    return {collection: whole[collection] for collection in collect}


def _no_moments(stats: Tree) -> Tree:
    if "mean" not in stats:
        return {name: _no_moments(tree) for name, tree in stats.items()}
    zeros = jax.tree.map(jnp.zeros_like, dict(stats))
    return {**zeros, "active": zeros["mean"].astype(bool)}


# -- kernels ---------------------------------------------------------------------------------------


def sampled_depthwise(
    x: jax.Array,
    weight: jax.Array,
    matrices: dict[str, jax.Array],
    kernels: tuple[int, ...],
    kernel: jax.Array,
    stride: int,
) -> jax.Array:
    """Depthwise convolution by the sampled filter, at its own size; shapes as in `elastic`."""
    branches = [Branch(_filter_by, (kernels, size, stride)) for size in kernels]
    return switch(branches, kernel, (), x, weight, matrices)[0]


def _filter_by(
    kernels: tuple[int, ...], size: int, stride: int, _: Tree, x: jax.Array, weight: jax.Array,
    matrices: dict[str, jax.Array],
) -> tuple[jax.Array, Tree]:  # fmt: skip
    small = elastic.transform_kernel(weight, matrices, kernels, size)
    return conv.depthwise_conv(x, small.astype(x.dtype), stride), ()
