"""The training loop: phase after phase, resumable at any step."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ofa_jax import checkpoint, mesh, processes
from ofa_jax.config import Config
from ofa_jax.data.pipeline import train_batches
from ofa_jax.data.sources import Dataset, load_dataset
from ofa_jax.metrics import MetricsLog, Progress, clock
from ofa_jax.models import Network, best_compute, build_supernet
from ofa_jax.report import write_report
from ofa_jax.spaces import space_to_dict
from ofa_jax.subnets.evaluate import evaluate_grid
from ofa_jax.train.feed import Feed
from ofa_jax.train.phases import phase_data
from ofa_jax.train.plan import Leg, plan
from ofa_jax.train.preemption import Preempted, StopRequests, stop_requests
from ofa_jax.train.sort_width import sort_width
from ofa_jax.train.step import TrainState, init_state, jit_step
from ofa_jax.workdir import claim

Tree = Any


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Config
    workdir: Path
    dataset: Dataset
    net: Network
    devices: Mesh
    legs: list[Leg]
    stop: StopRequests


class Saved(NamedTuple):
    """A checkpoint's place: the number of its leg and the run's step."""

    leg: int
    step: int


# The compiled steps by (resolution, subnets per step).
Programs = dict[tuple[int, int], jax.stages.Compiled]


def train(config: Config, workdir: Path) -> None:
    """Trains the supernet by the config's curriculum and writes `supernet/`.

    Run again, it continues behind the newest whole checkpoint, and does nothing where all is done.

    Raises:
      ValueError: broken checkpoints, or a config that does not fit the data or the devices.
      FloatingPointError: the loss is not finite; the last good checkpoint is kept.
      Preempted: SIGTERM came; everything is saved.
    """
    with processes.together():
        dataset = load_dataset(config.data)
    processes.check_same("data", {config.data.name: str(dataset)})
    devices = mesh.data_mesh(config.parallel.devices)
    mesh.check_batch(devices, config.data.batch_size, config.parallel.micro_steps)
    legs = plan(config, len(dataset.train))
    newest, broken = find_checkpoint(workdir, legs)
    done = newest.step if newest else 0
    if done == legs[-1].end and processes.from_first((workdir / "supernet").is_dir):
        print(f"training is complete: {done} steps, {workdir / 'supernet'}")
        return
    print(dataset, flush=True)
    space = config.search_space(len(dataset.class_names))
    net = build_supernet(space, best_compute(config.train.compute, mesh.platform(devices)))
    part = mesh.shard(devices)
    batches = train_batches(dataset, config.data, config.seed, done, part)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        stop = stack.enter_context(stop_requests())
        # Only now: a config that does not fit its data leaves no trace.
        stack.enter_context(claim(workdir, config))
        run = Run(config, workdir, dataset, net, devices, legs, stop)
        processes.from_first(lambda: remove_checkpoints(run, broken))
        log = stack.enter_context(MetricsLog(workdir if processes.is_first() else None, done))
        train_legs(run, newest, Feed(batches, devices), log)
        if stop.asked:
            raise Preempted(f"stopped by SIGTERM; the supernet is in {workdir / 'supernet'}")


def train_legs(run: Run, newest: Saved | None, feed: Feed, log: MetricsLog) -> None:
    """Trains from a checkpoint, or from fresh variables, to the end and writes `supernet/`."""
    legs, start = run.legs, 0
    state = init_state(run.config, run.devices, init_variables(run.net, run.config), 0)
    if newest is not None:
        name, step = legs[newest.leg].name, newest.step
        state = checkpoint.restore_step(run.workdir, name, step, state)
        print(f"resumed phase {name!r} at step {step} of {legs[-1].end}", flush=True)
        start = newest.leg + (step == legs[newest.leg].end)
    programs: Programs = {}
    for index in range(start, len(legs)):
        leg = legs[index]
        if int(state.step) == leg.first and index > 0:
            state = begin_phase(run, leg, state)
        teacher = teacher_variables(run, index, state)
        state, speed = train_leg(run, index, state, teacher, feed, programs, log)
        validate(run, leg, state, speed, log)
        processes.from_first(lambda: str(write_report(run.workdir)))
    space = space_to_dict(run.net.space)
    description = {"space": space, "step": int(state.step), "seed": run.config.seed}
    directory = run.workdir / "supernet"
    processes.from_first(lambda: checkpoint.save_network(directory, state.result, description))
    compiled = ", ".join(f"{r} px x {n} a step" for r, n in programs) or "nothing left to train"
    print(f"training step compiled {len(programs)} times: {compiled}")
    print(f"supernet written to {directory}")


def find_checkpoint(workdir: Path, legs: list[Leg]) -> tuple[Saved | None, list[Saved]]:
    """The run's newest whole checkpoint or None, and the broken ones behind it, each told.

    The first process looks, and its answer is everybody's.

    Raises:
      ValueError: damaged ones, and none whole.
    """
    newest, broken = processes.from_first(lambda: _look_for_checkpoint(workdir, legs))
    return Saved(*newest) if newest else None, [Saved(*saved) for saved in broken]


def _look_for_checkpoint(workdir: Path, legs: list[Leg]) -> tuple[Saved | None, list[Saved]]:
    broken: list[Saved] = []
    damage: ValueError | None = None
    for index in reversed(range(len(legs))):
        name = legs[index].name
        for step in checkpoint.saved_steps(workdir, name):
            if not checkpoint.is_sealed(workdir, name, step):
                print(f"checkpoint {name}/{step} was not finished, and is left out", flush=True)
                broken.append(Saved(index, step))
                continue
            try:
                checkpoint.check_step(workdir, name, step)
                return Saved(index, step), broken
            except ValueError as error:
                print(f"{error}; the one before it is used", flush=True)
                broken.append(Saved(index, step))
                damage = damage or error
    if damage:
        raise ValueError(f"{damage}, and none before it is whole: remove {workdir} to begin anew")
    return None, broken


def remove_checkpoints(run: Run, broken: list[Saved]) -> None:
    """Deletes broken checkpoints, so that their steps can be saved again."""
    for saved in broken:
        checkpoint.remove_step(run.workdir, run.legs[saved.leg].name, saved.step)


def init_variables(net: Network, config: Config) -> Tree:
    """Freshly drawn variables of the supernet."""
    image = jnp.zeros((1, config.data.resolutions[0], config.data.resolutions[0], 3))
    return jax.jit(net.init)(jax.random.key(config.seed), image, net.space.largest())


def train_leg(
    run: Run,
    index: int,
    state: TrainState,
    teacher: Tree,
    feed: Feed,
    programs: Programs,
    log: MetricsLog,
) -> tuple[TrainState, dict[str, float]]:
    """Trains one phase from `state` to its end, saving checkpoints; the new state and its speed."""
    leg, batch_size = run.legs[index], run.config.data.batch_size
    data = phase_data(leg.phase, run.net.space, leg.first, len(run.dataset.train), batch_size)
    data = mesh.replicate(run.devices, data)
    after = sum(later.units for later in run.legs[index + 1 :])
    first, stepping = int(state.step), 0.0
    progress = Progress(leg.name, first - leg.first, leg.end - leg.first, leg.units, after)
    previous: tuple[int, Tree] | None = None
    train_config = run.config.train
    with checkpoint.open_phase(run.workdir, leg.name, train_config.checkpoint_keep) as manager:
        for step in range(first + 1, leg.end + 1):
            batch = feed.take()
            program = compiled_step(run, programs, leg.phase.subnets, state, teacher, data, batch)
            processes.hear(f"step {step} of phase {leg.name!r}")
            began = time.monotonic()
            state, metrics = program(state, teacher, data, batch)
            # The device is at this step already while the host loads the next batch and looks
            # at the step before.
            feed.fetch()
            if previous is not None:
                record(run, leg, log, progress, *previous)
            previous = (step, metrics)
            stop = run.stop.at(step) and step < leg.end
            if stop or step == leg.end or (step - leg.first) % train_config.checkpoint_steps == 0:
                record(run, leg, log, progress, *previous)  # never save what is not finite
                previous = None
                checkpoint.save_step(manager, step, state, {"phase": leg.name})
            if stop:
                checkpoint.finish_saves(manager)
                raise Preempted(f"stopped by SIGTERM and saved, phase {leg.name!r} at step {step}")
            checkpoint.seal_saves(manager)
            stepping += time.monotonic() - began
        checkpoint.finish_saves(manager)
    processes.hear("")
    seconds = progress.close()
    waited, skipped = feed.report()
    speed = {
        "seconds": seconds,
        "images_per_second": (leg.end - first) * batch_size / max(stepping, 1e-9),
        "waited_for_data": waited / max(stepping, 1e-9),
        "skipped_images": skipped,
    }
    log.write(leg.end, speed, leg.name, "phase")
    return state, speed


def record(
    run: Run, leg: Leg, log: MetricsLog, progress: Progress, step: int, metrics: Tree
) -> None:
    """Logs and shows one step's metrics; raises `FloatingPointError` if one is not finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    check_finite(leg, step, values)
    log.write(step, values, leg.name, "train")
    progress.update(run.config.data.batch_size, values["loss"], values["accuracy"])


def begin_phase(run: Run, leg: Leg, state: TrainState) -> TrainState:
    """The state a phase starts from: the last one's result, widths sorted, fresh optimiser."""
    variables = jax.device_get(state.result)
    if leg.phase.sort_width:
        variables = sort_width(run.net.space, variables, leg.phase)
    return init_state(run.config, run.devices, variables, leg.first)


def teacher_variables(run: Run, index: int, like: TrainState) -> Tree:
    """The largest net as the first phase left it; zeros for a phase that has no teacher."""
    if not run.legs[index].phase.distill or run.config.distill.source != "teacher":
        zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like.result)
        return mesh.replicate(run.devices, zeros)
    first = run.legs[0]
    return checkpoint.restore_step(run.workdir, first.name, first.end, like).result


def compiled_step(
    run: Run, programs: Programs, subnets: int, *arguments: Any
) -> jax.stages.Compiled:
    """The step's program for this resolution and number of subnets, compiled at first use.

    Compiled ahead of time, it refuses other shapes: a silent recompilation cannot happen.
    """
    resolution = arguments[-1]["image"].shape[1]
    if (resolution, subnets) not in programs:
        processes.hear("")
        started = time.monotonic()
        jitted = jit_step(run.net, run.config, subnets, run.devices, arguments[0])
        programs[resolution, subnets] = jitted.lower(*arguments).compile()
        print(
            f"compiled the training step: {resolution} px, {subnets} subnets a step,"
            f" {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return programs[resolution, subnets]


def check_finite(leg: Leg, step: int, values: dict[str, float]) -> None:
    """Raises `FloatingPointError`, naming phase and step, if a figure is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} in phase {leg.name!r} at step {step}: lower"
                f" phases.{leg.name}.lr={leg.phase.lr} or lengthen its warm-up;"
                " the last checkpoint is kept"
            )


def validate(
    run: Run, leg: Leg, state: TrainState, speed: dict[str, float], log: MetricsLog
) -> None:
    """Prints and logs the held-out accuracy of the phase's own corner subnets."""
    choices = leg.phase.choices(run.net.space)
    rows = evaluate_grid(
        run.net, state.result, run.config, run.dataset, run.devices, "held_out", choices
    )
    values = {f"top1/{row['name']}_{row['resolution']}": row["top1"] for row in rows}
    log.write(leg.end, values, leg.name, "held_out")
    worst, mean = min(row["top1"] for row in rows), sum(row["top1"] for row in rows) / len(rows)
    skipped = f", {speed['skipped_images']} corrupt images passed over"
    print(
        f"phase {leg.name}: {leg.end - leg.first} steps in {clock(speed['seconds'])}, waited for"
        f" data {speed['waited_for_data']:.1%}{skipped if speed['skipped_images'] else ''},"
        f" held-out top-1 mean {mean:.2%}, worst {worst:.2%} of {len(rows)} subnets",
        flush=True,
    )
