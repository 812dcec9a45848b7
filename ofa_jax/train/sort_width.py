"""Width sorting: before fewer channels are used, the important ones move to the front."""

from typing import Any

import jax
import jax.numpy as jnp

from ofa_jax.space import Block, SearchSpace
from ofa_jax.train.phases import Phase

Tree = Any


def sort_width(space: SearchSpace, variables: Tree, phase: Phase | int) -> Tree:
    """Permutes each block's middle channels by importance, as an expand phase starts.

    Importance is the L1 norm of the projection weights that read a channel. Widths that were open
    before keep their channels: a phase that opens 3, 4, 6 sorts only within [0, 4 in) and
    [4 in, 6 in). The largest net's function is unchanged. The SE squeeze units are sorted over
    their whole width, which does disturb the smaller subnets, as in the reference. Source:
    `DynamicMBConvLayer.re_organize_middle_weights` of the reference.

    Args:
      space: the supernet's space.
      variables: {"params", "batch_stats"}; untouched.
      phase: the phase about to start, or the reference's `expand_ratio_stage` (0, 1, ...).

    Returns:
      New variables.

    Raises:
      ValueError: a stage below 0 or beyond the space's expand choices.
    """
    last = len(space.expands) - 1
    stage = phase if isinstance(phase, int) else max(len(phase.expands or space.expands) - 2, 0)
    if not 0 <= stage <= last:
        raise ValueError(f"expand stage {stage}: {space.name} has 0 to {last}")
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    for block in space.blocks:
        # Stage 0 keeps nothing; stage i keeps the i widths below the largest.
        kept = block.mids[len(block.mids) - 1 - stage : -1]
        params[block.name], stats[block.name] = _sort_block(
            block, params[block.name], stats[block.name], kept
        )
    return {"params": params, "batch_stats": stats}


def _sort_block(block: Block, params: Tree, stats: Tree, kept: tuple[int, ...]) -> Any:
    importance = jnp.abs(params["point_linear"]["conv"]["kernel"]).sum(1)
    segment = jnp.searchsorted(jnp.asarray(kept, jnp.int32), jnp.arange(block.mids[-1]), "right")
    # The reference's own offsets, so that channels come out in its order: at -2e5 float32 has
    # steps of 1/64, so in the upper segment channels nearer than that tie. Ours then keep their
    # old order; the reference's follow PyTorch's unstable sort, which differs between machines.
    steps = len(block.mids) - len(kept) + segment - 1
    order = jnp.argsort(-(importance - jnp.where(segment > 0, steps * 1e5, 0.0)), stable=True)

    def take(tree: Tree) -> Tree:  # the last axis of every array holds the middle channels
        return jax.tree.map(lambda a: jnp.take(a, order, axis=-1), tree)

    conv = params["depth_conv"]["conv"]
    depth_conv = {
        "conv": {**conv, "kernel": take(conv["kernel"])},
        "bn": take(params["depth_conv"]["bn"]),
    }
    project = params["point_linear"]["conv"]["kernel"]
    point_linear = {**params["point_linear"], "conv": {"kernel": jnp.take(project, order, axis=0)}}
    sorted_params = {**params, "depth_conv": depth_conv, "point_linear": point_linear}
    sorted_stats = {**stats, "depth_conv": take(stats["depth_conv"])}
    if block.inverted:
        sorted_params["inverted_bottleneck"] = take(params["inverted_bottleneck"])
        sorted_stats["inverted_bottleneck"] = take(stats["inverted_bottleneck"])
    if block.squeezes:
        sorted_params["se"] = _sort_squeeze(params["se"], order)
    return sorted_params, sorted_stats


def _sort_squeeze(se: Tree, order: jax.Array) -> Tree:
    """Follows the channels' `order`, then sorts the squeeze units by the L1 of their outputs."""
    expand = jnp.take(se["expand"]["kernel"], order, axis=1)
    reduce = jnp.take(se["reduce"]["kernel"], order, axis=0)
    units = jnp.argsort(-jnp.abs(expand).sum(1), stable=True)
    return {
        "reduce": {"kernel": reduce[:, units], "bias": se["reduce"]["bias"][units]},
        "expand": {"kernel": expand[units], "bias": se["expand"]["bias"][order]},
    }
