"""A whole curriculum in one call, on batches from anywhere."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from ofa_jax.errors import InputError
from ofa_jax.mesh import check_batch, data_mesh, replicate
from ofa_jax.network import Network
from ofa_jax.space import SearchSpace
from ofa_jax.train.optimizer import sgd
from ofa_jax.train.phases import Phase, check_curriculum, phase_data
from ofa_jax.train.sort_width import sort_width
from ofa_jax.train.step import Batch, init_state, make_train_step

Tree = Any
Metrics = dict[str, jax.Array]


def fit(
    net: Network,
    variables: Tree,
    phases: Sequence[Phase],
    batches: Iterable[Batch],
    *,
    images: int,
    batch_size: int,
    teacher: Tree | None = None,
    optimizer: optax.GradientTransformation | None = None,
    mesh: Mesh | None = None,
    ema: float = 0.0,
    on_step: Callable[[int, Metrics], None] = lambda step, metrics: None,
    **options: Any,
) -> Tree:
    """Trains a curriculum, phase after phase; the variables that the last one leaves.

    Each phase starts from what the one before left, with a fresh optimiser. The first one's result
    teaches the phases after it, unless there is a `teacher`.

    Args:
      net: a supernet.
      variables: {"params", "batch_stats"} to start from; untouched.
      phases: one or more.
      batches: {"image": `[batch, height, width, 3]` uint8, "label": `[batch]` int32}, one a step;
        may be endless.
      images: training images of an epoch, which phases count in.
      batch_size: images of each batch.
      teacher: trained variables that teach from the first phase on.
      optimizer: without a learning rate; default `sgd()`.
      mesh: devices over which each batch is split; default all of them.
      ema: as `make_train_step` has it.
      on_step: called after each step with its number, from 1, and the metrics, still on the device.
      **options: others of `make_train_step`, such as `seed` and `distillation`.

    Returns:
      The new variables, in the host's memory.

    Raises:
      ValueError: batches that end too early or have another size; a phase that the space cannot
        train, or one to be taught by nobody.
    """
    if not phases:
        raise InputError("phases=(): expected one or more")
    named = [(str(index), phase) for index, phase in enumerate(phases)]
    check_curriculum(net.space, named, teacher is not None)
    devices, optimizer = mesh or data_mesh(), optimizer or sgd()
    check_batch(devices, batch_size, options.get("micro_steps", 1))
    most = max(phase.subnets for phase in phases)
    step = make_train_step(net, optimizer=optimizer, mesh=devices, most=most, ema=ema, **options)
    lengths = [phase.steps(images, batch_size) for phase in phases]
    feed = _whole(batches, batch_size, sum(lengths))
    teaching, done = replicate(devices, variables if teacher is None else teacher), 0
    for phase, length in zip(phases, lengths, strict=True):
        data = replicate(devices, phase_data(phase, net.space, done, images, batch_size))
        variables = opened(net.space, variables, phase)
        state = init_state(variables, optimizer, mesh=devices, step=done, ema=bool(ema))
        for number in range(done + 1, done + length + 1):
            state, metrics = step(state, teaching, data, next(feed))
            on_step(number, metrics)
        variables = jax.device_get(state.result)
        if teacher is None and done == 0:
            teaching = replicate(devices, variables)
        done += length
    return variables


def opened(space: SearchSpace, variables: Tree, phase: Phase) -> Tree:
    """The variables that a phase starts from: sorted by importance, if it says so."""
    return sort_width(space, variables, phase) if phase.sort_width else variables


def _whole(batches: Iterable[Batch], batch_size: int, steps: int) -> Iterator[Batch]:
    """So many batches, each of `batch_size` images; `ValueError` where there are fewer."""
    source = iter(batches)
    for done in range(steps):
        batch = next(source, None)
        if batch is None:
            raise InputError(f"the batches end after {done} of {steps} steps")
        if len(batch["label"]) != batch_size:
            size = len(batch["label"])
            raise InputError(f"batch_size={batch_size}: batch {done} has {size} images")
        yield batch
