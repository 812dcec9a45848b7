"""Width sorting: before fewer channels are used, the important ones move to the front."""

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ofa_jax.errors import InputError
from ofa_jax.space import SearchSpace
from ofa_jax.spaces import Bottleneck, InvertedResidual, ResNetSpace
from ofa_jax.train.phases import Phase

Tree = Any
Path = tuple[str, ...]


def sort_width(space: SearchSpace, variables: Tree, phase: Phase | int) -> Tree:
    """Permutes channels by importance, as a phase that opens smaller widths starts.

    Importance is the L1 norm of the weights that read a channel. The middle channels of every
    block are sorted; those open before keep their place: a phase that opens the expand ratios 3,
    4, 6 sorts only within [0, 4 in) and [4 in, 6 in). Where the phase opens width multipliers, the
    outputs of stem and stages are sorted too, by the same rule (`sort_outputs`). The largest net's
    function is unchanged. SE squeeze units are sorted over their whole width, which does disturb
    the smaller subnets, as in the reference. Source: `re_organize_middle_weights` of
    `DynamicMBConvLayer` and `DynamicResNetBottleneckBlock` in the reference.

    Args:
      space: the supernet's space.
      variables: {"params", "batch_stats"}; untouched.
      phase: the phase about to start; or the reference's `expand_ratio_stage` (0, 1, ...), for
        the middle channels alone.

    Returns:
      New variables.

    Raises:
      ValueError: a stage below 0 or beyond the space's expand choices.
    """
    last = len(space.expands) - 1
    stage = phase if isinstance(phase, int) else _stage(phase.expands or space.expands)
    if not 0 <= stage <= last:
        raise InputError(f"expand stage {stage}: {space.name} has 0 to {last}")
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    for block in space.blocks:
        sort_block = _sort_bottleneck if isinstance(block, Bottleneck) else _sort_inverted_residual
        params[block.name], stats[block.name] = sort_block(
            block, params[block.name], stats[block.name], stage
        )
    widths = () if isinstance(phase, int) else phase.widths or space.widths
    if isinstance(space, ResNetSpace) and len(widths) > 1:
        return sort_outputs(space, {"params": params, "batch_stats": stats}, _stage(widths))
    return {"params": params, "batch_stats": stats}


def _stage(choices: Sequence[float]) -> int:
    """The number of the phase that opens so many choices, from 0: the first opens two."""
    return max(len(choices) - 2, 0)


def _order(importance: jax.Array, widths: Sequence[int], stage: int) -> jax.Array:
    """The channels by descending importance, those of each width opened before `stage` apart."""
    # Stage 0 keeps nothing; stage i keeps the i widths below the largest.
    kept = widths[len(widths) - 1 - stage : -1]
    channels = jnp.arange(widths[-1], dtype=jnp.int32)
    segment = jnp.searchsorted(jnp.asarray(kept, jnp.int32), channels, "right")
    # The reference's own offsets, so that channels come out in its order: at -2e5 float32 has
    # steps of 1/64, so in the upper segment channels nearer than that tie. Ours then keep their
    # old order; the reference's follow PyTorch's unstable sort, which differs between machines.
    steps = (len(widths) - len(kept) + segment - 1).astype(jnp.float32)
    return jnp.argsort(-(importance - jnp.where(segment > 0, steps * 1e5, 0.0)), stable=True)


def _take(tree: Tree, order: jax.Array, axis: int = -1) -> Tree:
    # The last axis of every array holds output channels, the last but one of a weight its inputs.
    return jax.tree.map(lambda a: jnp.take(a, order, axis=axis), tree)


def _read(weight: jax.Array) -> jax.Array:
    """`[inputs]`: the L1 norm of the weights that read each input channel."""
    return jnp.abs(weight).sum([axis for axis in range(weight.ndim) if axis != weight.ndim - 2])


def _take_inputs(layer: Tree, order: jax.Array) -> Tree:
    return {**layer, "conv": _take(layer["conv"], order, axis=-2)}


def _sort_inverted_residual(
    block: InvertedResidual, params: Tree, stats: Tree, stage: int
) -> tuple[Tree, Tree]:
    order = _order(_read(params["point_linear"]["conv"]["kernel"]), block.mids, stage)
    conv = params["depth_conv"]["conv"]
    sorted_params = {
        **params,
        "depth_conv": {
            "conv": {**conv, "kernel": _take(conv["kernel"], order)},  # its matrices are shared
            "bn": _take(params["depth_conv"]["bn"], order),
        },
        "point_linear": _take_inputs(params["point_linear"], order),
    }
    sorted_stats = {**stats, "depth_conv": _take(stats["depth_conv"], order)}
    if block.inverted:
        sorted_params["inverted_bottleneck"] = _take(params["inverted_bottleneck"], order)
        sorted_stats["inverted_bottleneck"] = _take(stats["inverted_bottleneck"], order)
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


def _sort_bottleneck(block: Bottleneck, params: Tree, stats: Tree, stage: int) -> tuple[Tree, Tree]:
    params, stats = dict(params), dict(stats)
    # What the third convolution reads, then what the second one reads.
    for reader, writer in (("conv3", "conv2"), ("conv2", "conv1")):
        order = _order(_read(params[reader]["conv"]["kernel"]), block.mids[-1], stage)
        params[reader] = _take_inputs(params[reader], order)
        params[writer], stats[writer] = _take(params[writer], order), _take(stats[writer], order)
    return params, stats


def sort_outputs(space: ResNetSpace, variables: Tree, stage: int) -> Tree:
    """Sorts the output channels of a ResNet's stem and stages, for smaller width multipliers.

    All blocks of a stage add to the same channels, so they are permuted alike; importance is
    summed over all that read them. The reference names this sort but never wrote it.

    Args:
      space: the supernet's space.
      variables: {"params", "batch_stats"}; untouched.
      stage: 0 sorts all channels, i leaves those of the i multipliers below the largest apart.

    Returns:
      New variables, with which the largest net computes the same.
    """
    params = jax.tree.map(lambda a: a, variables["params"])  # dicts of its own, shared arrays
    stats = jax.tree.map(lambda a: a, variables["batch_stats"])
    for widths, writers, readers in _streams(space):
        weights = [functools.reduce(operator.getitem, path, params) for path in readers]
        importance = jnp.stack([_read(weight["kernel"]) for weight in weights]).sum(0)
        order = _order(importance, widths, stage)
        for module, layer in writers:
            params[module][layer] = _take(params[module][layer], order)
            stats[module][layer] = _take(stats[module][layer], order)
        # Looked up again: a layer may both write and read a stream.
        for path in readers:
            weight = functools.reduce(operator.getitem, path, params)
            weight["kernel"] = _take(weight["kernel"], order, axis=-2)
    return {"params": params, "batch_stats": stats}


def _streams(space: ResNetSpace) -> Iterator[tuple[Sequence[int], Sequence[Path], Sequence[Path]]]:
    """(widths, layers that write, weights that read) of each run of channels that go together."""
    stem = space.stem_block
    yield stem.mids, [("stem", "conv1"), ("stem", "conv2")], _weights("stem", "conv2", "conv3")
    stages = [
        [block.name for block in space.blocks if block.stage == stage]
        for stage in range(len(space.stages))
    ]
    # What reads each stage's output: the next stage, and at the end the classifier.
    next_readers = [_weights(names[0], "conv1", "downsample") for names in stages]
    next_readers.append([("classifier",)])
    yield stem.widths, [("stem", "conv3")], next_readers[0]
    for index, names in enumerate(stages):
        writers = [(names[0], "downsample"), *((name, "conv3") for name in names)]
        inside = [(name, "conv1", "conv") for name in names[1:]]
        widths = space.scaled(space.stages[index].width)
        yield widths, writers, [*inside, *next_readers[index + 1]]


def _weights(module: str, *layers: str) -> list[Path]:
    return [(module, layer, "conv") for layer in layers]
