"""Width sorting: before fewer channels are used, the important ones move to the front."""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ofa_jax.errors import InputError
from ofa_jax.space import SearchSpace
from ofa_jax.topology import Add, Conv, Dense, Size, SqueezeExcite
from ofa_jax.train.phases import Phase

Tree = Any


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
    streams = _streams(space)
    # Backwards, as in the reference: of a block, what its last layer reads comes first.
    inside = [stream for stream in reversed(streams) if stream.chosen_by("expand")]
    variables = _sorted(inside, variables, stage)
    widths = () if isinstance(phase, int) else phase.widths or space.widths
    return sort_outputs(space, variables, _stage(widths)) if len(widths) > 1 else variables


def sort_outputs(space: SearchSpace, variables: Tree, stage: int) -> Tree:
    """Sorts the channels that width multipliers alone choose: outputs of a stem and of stages.

    All layers that add to the same channels are permuted alike; importance is summed over all that
    read them. The reference names this sort but never wrote it.

    Args:
      space: the supernet's space.
      variables: {"params", "batch_stats"}; untouched.
      stage: 0 sorts all channels, i leaves those of the i multipliers below the largest apart.

    Returns:
      New variables, with which the largest net computes the same.
    """
    return _sorted([s for s in _streams(space) if not s.chosen_by("expand")], variables, stage)


# -- channels that go together ---------------------------------------------------------------------


@dataclasses.dataclass
class Stream:
    """Channels that genes choose the number of, through all layers that hold or read them."""

    channels: Size
    writers: list[str] = dataclasses.field(default_factory=list)  # convolutions that make them
    scalers: list[str] = dataclasses.field(default_factory=list)  # SE units that weigh them
    readers: list[Conv | Dense] = dataclasses.field(default_factory=list)  # that mix them

    def chosen_by(self, field: str) -> bool:
        """Whether a gene of this field of `Arch` is among those that choose."""
        return any(name == field for name, _ in self.channels.genes)


def _streams(space: SearchSpace) -> list[Stream]:
    """Every stream of the space's network, in the order of their first layers."""
    streams = [Stream(space.layers[0].source.channels)]
    of_value = [0]  # the stream of each value
    for layer in space.layers:
        source = of_value[layer.inputs[0]]
        match layer.operation:
            case Conv(depthwise=True) as conv:
                streams[source].writers.append(conv.path)
            case Conv() | Dense() as weights:
                streams[source].readers.append(weights)
                writers = [weights.path] if isinstance(weights, Conv) else []
                streams.append(Stream(layer.output.channels, writers))
                source = len(streams) - 1
            case SqueezeExcite(path):
                streams[source].scalers.append(path)
            case Add():
                other = of_value[layer.inputs[1]]
                source, other = min(source, other), max(source, other)
                of_value = [source if stream == other else stream for stream in of_value]
                if source != other:
                    _join(streams[source], streams[other])
        of_value.append(source)
    return [stream for stream in streams if stream.channels.genes and stream.readers]


def _join(stream: Stream, other: Stream) -> None:
    for field in ("writers", "scalers", "readers"):
        getattr(stream, field).extend(getattr(other, field))
        getattr(other, field).clear()


def _sorted(streams: Iterable[Stream], variables: Tree, stage: int) -> Tree:
    params = jax.tree.map(lambda a: a, variables["params"])  # dicts of its own, shared arrays
    stats = jax.tree.map(lambda a: a, variables["batch_stats"])
    for stream in streams:
        weights = [_weights(params, reader) for reader in stream.readers]
        importance = jnp.stack([_read(holder["kernel"]) for holder in weights]).sum(0)
        order = _order(importance, stream.channels.choices, stage)
        for path in stream.writers:
            layer, running = _at(params, path), _at(stats, path)
            layer["conv"]["kernel"] = _take(layer["conv"]["kernel"], order)
            layer["bn"], running["bn"] = _take(layer["bn"], order), _take(running["bn"], order)
        for path in stream.scalers:
            _at(params, path).update(_sort_squeeze(_at(params, path), order))
        for holder in weights:
            holder["kernel"] = _take(holder["kernel"], order, axis=-2)
    return {"params": params, "batch_stats": stats}


def _at(tree: Tree, path: str) -> Tree:
    return functools.reduce(operator.getitem, path.split("/"), tree)


def _weights(params: Tree, reader: Conv | Dense) -> Tree:
    """What has the "kernel" of a layer."""
    layer = _at(params, reader.path)
    return layer["conv"] if isinstance(reader, Conv) else layer


# -- orders ----------------------------------------------------------------------------------------


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


def _sort_squeeze(se: Tree, order: jax.Array) -> Tree:
    """Follows the channels' `order`, then sorts the squeeze units by the L1 of their outputs."""
    expand = jnp.take(se["expand"]["kernel"], order, axis=1)
    reduce = jnp.take(se["reduce"]["kernel"], order, axis=0)
    units = jnp.argsort(-jnp.abs(expand).sum(1), stable=True)
    return {
        "reduce": {"kernel": reduce[:, units], "bias": se["reduce"]["bias"][units]},
        "expand": {"kernel": expand[units], "bias": se["expand"]["bias"][order]},
    }
