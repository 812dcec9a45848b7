"""The training loop: phase after phase, resumable at any step."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ofa_jax import mesh
from ofa_jax.checkpoint import SEAL
from ofa_jax.errors import InputError
from ofa_jax.network import Network, best_compute, build_supernet
from ofa_jax.run import checkpoints, processes
from ofa_jax.run.config import Config
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.data.pipeline import train_batches
from ofa_jax.run.data.sources import Dataset
from ofa_jax.run.evaluate import evaluate_grid
from ofa_jax.run.feed import Feed
from ofa_jax.run.initial import starting_variables, teaches
from ofa_jax.run.metrics import MetricsLog, Progress, clock, counted
from ofa_jax.run.plan import Leg, plan
from ofa_jax.run.preemption import Preempted, stop_requests
from ofa_jax.run.report import write_report
from ofa_jax.run.step import init_state, jit_step
from ofa_jax.run.supernet_card import check_taken_over, supernet_card
from ofa_jax.run.workdir import check_unchanged, claim, locked
from ofa_jax.storage import is_published
from ofa_jax.supernet import save_supernet
from ofa_jax.train.fit import opened
from ofa_jax.train.phases import phase_data
from ofa_jax.train.step import TrainState

Tree = Any


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Config
    workdir: Path
    dataset: Dataset
    net: Network
    devices: Mesh
    legs: list[Leg]
    start: Tree


class Saved(NamedTuple):
    """A checkpoint's place: the number of its leg and the run's step."""

    leg: int
    step: int


# The compiled steps by resolution.
Programs = dict[int, jax.stages.Compiled]


def train(config: Config, workdir: Path) -> None:
    """Trains the supernet by the config's curriculum and writes `supernet/`.

    Run again, it resumes from the newest whole checkpoint, and does nothing once all is done.

    Raises:
      ValueError: broken checkpoints, or a config that does not fit the data or the devices.
      FloatingPointError: the loss is not finite; the last good checkpoint is kept.
      Preempted: SIGTERM or SIGHUP came; everything is saved.
    """
    with processes.together():
        dataset = load_dataset(config.data)
    processes.check_same("data", {config.data.name: str(dataset)})
    devices = mesh.data_mesh(config.parallel.devices)
    mesh.check_batch(devices, config.data.batch_size, config.parallel.micro_steps)
    legs, directory = plan(config, len(dataset.train)), workdir / "supernet"
    with locked(workdir):  # another run might be writing the checkpoints that are looked at
        newest, broken = find_checkpoint(workdir, legs)
        done = newest.step if newest else 0
        if done == end_of(legs) and processes.from_first(lambda: is_published(directory, SEAL)):
            check_taken_over(config, workdir)
            check_unchanged(workdir, config, dataset)
            print(f"training is complete: {done} steps, {directory}")
            return
        if newest is None and processes.from_first(lambda: is_published(directory, SEAL)):
            raise InputError(
                f"{directory} exists, and no checkpoint beside it is of this run: give"
                " another --workdir, or move it away to train from scratch"
            )
        print(dataset, flush=True)
        space = config.search_space(len(dataset.class_names))
        way = best_compute(config.train.compute, mesh.platform(devices), space)
        net = build_supernet(space, way)
        with processes.together():
            variables = starting_variables(config, net, dataset.class_names, newest is not None)
        run = Run(config, workdir, dataset, net, devices, legs, variables)
        train_from(newest, broken, run)


def train_from(newest: Saved | None, broken: list[Saved], run: Run) -> None:
    """Trains from a checkpoint, or from the run's start, with data and log at its step."""
    config, done = run.config, newest.step if newest else 0
    part = mesh.shard(run.devices)
    batches = train_batches(run.dataset, config.data, config.seed, done, part)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        # Only now: a config that does not fit its data leaves no trace.
        stack.enter_context(claim(run.workdir, config, run.dataset))
        processes.from_first(lambda: put_aside(run, broken))
        log = stack.enter_context(MetricsLog(run.workdir if processes.is_first() else None, done))
        train_legs(run, newest, Feed(batches, run.devices), log)


def train_legs(run: Run, newest: Saved | None, feed: Feed, log: MetricsLog) -> None:
    """Trains from a checkpoint, or from the run's start, to the end and writes `supernet/`."""
    legs, begin = run.legs, 0
    state = init_state(run.config, run.devices, run.start, 0)
    if newest is not None:
        name, step = legs[newest.leg].name, newest.step
        state = checkpoints.restore_step(run.workdir, name, step, state)
        print(f"resumed phase {name!r} at step {step} of {legs[-1].end}", flush=True)
        begin = newest.leg + (step == legs[newest.leg].end)
        if begin > newest.leg and not processes.from_first(lambda: log.has_held_out(step)):
            validate(run, legs[newest.leg], state, log)  # it was stopped before it did
    programs: Programs = {}
    for index in range(begin, len(legs)):
        leg = legs[index]
        if int(state.step) == leg.first and (index > 0 or run.config.init):
            state = begin_phase(run, leg, state)
        teacher = teacher_variables(run, index, state)
        state, speed = train_leg(run, index, state, teacher, feed, programs, log)
        validate(run, leg, state, log, speed)
        processes.from_first(lambda: str(write_report(run.workdir)))
    directory = run.workdir / "supernet"
    card = supernet_card(run.config, run.workdir.name, run.dataset, run.net.space, legs)
    processes.from_first(lambda: put_supernet_aside(directory))
    processes.from_first(lambda: save_supernet(directory, run.net.space, state.result, card))
    sizes = ", ".join(f"{resolution} px" for resolution in programs) or "nothing left to train"
    print(f"training step compiled {counted(len(programs), 'time')}: {sizes}")
    print(f"supernet written to {directory}")


def end_of(legs: list[Leg]) -> int:
    """The run's number of steps."""
    return legs[-1].end if legs else 0


def find_checkpoint(workdir: Path, legs: list[Leg]) -> tuple[Saved | None, list[Saved]]:
    """The run's newest whole checkpoint or None, and the damaged ones after it, each reported.

    The first process looks, and its answer is everybody's.

    Raises:
      ValueError: damaged ones, and none whole.
    """
    newest, broken = processes.from_first(lambda: _look_for_checkpoint(workdir, legs))
    return Saved(*newest) if newest else None, [Saved(*saved) for saved in broken]


def _look_for_checkpoint(workdir: Path, legs: list[Leg]) -> tuple[Saved | None, list[Saved]]:
    broken: list[Saved] = []
    damage: InputError | None = None
    for index in reversed(range(len(legs))):
        name = legs[index].name
        for step in checkpoints.saved_steps(workdir, name):
            if not legs[index].first < step <= legs[index].end:
                raise InputError(
                    f"{checkpoints.phase_directory(workdir, name) / str(step)} is not this run's,"
                    f" whose phase {name!r} has steps {legs[index].first + 1} to"
                    f" {legs[index].end}: move it away"
                )
            if not checkpoints.is_sealed(workdir, name, step):
                print(f"checkpoint {name}/{step} was not finished, and is left out", flush=True)
                broken.append(Saved(index, step))
                continue
            try:
                checkpoints.check_step(workdir, name, step)
                return Saved(index, step), broken
            except InputError as error:
                print(f"{error}; the one before it is used", flush=True)
                broken.append(Saved(index, step))
                damage = damage or error
    if damage:
        raise InputError(f"{damage}, and none before it is whole: remove {workdir} to start over")
    return None, broken


def put_aside(run: Run, broken: list[Saved]) -> None:
    """Moves broken checkpoints away, so that their steps can be saved again."""
    for saved in broken:
        place = checkpoints.put_aside(run.workdir, run.legs[saved.leg].name, saved.step)
        print(f"it is put aside in {place}", flush=True)


def put_supernet_aside(directory: Path) -> None:
    """Moves a supernet away that lies where the run's own goes: of whom it is, nobody knows."""
    if directory.exists():
        place = checkpoints.move_aside(directory.parent, directory, directory.name)
        print(f"the supernet that was there is put aside in {place}", flush=True)


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
    data = phase_data(
        leg.phase, run.net.space, leg.first, len(run.dataset.train), batch_size, leg.falls
    )
    data = mesh.replicate(run.devices, data)
    after = sum(later.units for later in run.legs[index + 1 :])
    first, stepping = int(state.step), 0.0
    progress = Progress(leg.name, first - leg.first, leg.end - leg.first, leg.units, after)
    pending: list[tuple[int, Tree]] = []  # steps whose metrics are still on the devices
    train_config = run.config.train
    with (
        stop_requests() as stop,
        checkpoints.open_phase(run.workdir, leg.name, train_config.checkpoint_keep) as manager,
    ):
        for step in range(first + 1, leg.end + 1):
            batch = feed.take()
            program = compiled_step(run, programs, state, teacher, data, batch)
            processes.heartbeat(f"step {step} of phase {leg.name!r}")
            began = time.monotonic()
            state, metrics = program(state, teacher, data, batch)
            # The device is at this step already while the host loads the next batch.
            feed.fetch()
            jax.block_until_ready(pending[-1:])  # no further ahead: a batch each waits there
            pending.append((step, metrics))
            stopping = stop.at(step)
            saving = stopping or step == leg.end
            saving |= (step - leg.first) % train_config.checkpoint_steps == 0
            if saving or step == first + 1 or step % train_config.log_every == 0:
                record(run, leg, log, progress, pending)  # never save what is not finite
                pending = []
            if saving:
                log.flush()  # steps before a checkpoint are never logged again
                checkpoints.save_step(manager, step, state, {"phase": leg.name})
            if stopping:
                break
            checkpoints.seal_saves(manager)
            stepping += time.monotonic() - began
        waited, skipped = feed.report()
        speed = {
            "seconds": progress.close(),
            "images_per_second": (leg.end - first) * batch_size / max(stepping, 1e-9),
            "waited_for_data": waited / max(stepping, 1e-9),
            "skipped_images": skipped,
        }
        if step == leg.end:
            log.write(leg.end, speed, leg.name, "phase")
        checkpoints.finish_saves(manager)
    if stop.signal:
        raise Preempted(f"stopped by {stop.signal} and saved, phase {leg.name!r} at step {step}")
    processes.heartbeat("")
    return state, speed


def record(
    run: Run, leg: Leg, log: MetricsLog, progress: Progress, pending: list[tuple[int, Tree]]
) -> None:
    """Fetches the metrics of some steps and shows them; logs each `log_every`th and the last.

    Raises:
      FloatingPointError: one is not finite.
    """
    for step, metrics in jax.device_get(pending):
        values = {name: float(value) for name, value in metrics.items()}
        check_finite(leg, step, values)
        if step % run.config.train.log_every == 0 or step == leg.end:
            log.write(step, values, leg.name, "train")
        progress.add(values["loss"], values["accuracy"])
    progress.show(run.config.data.batch_size)


def begin_phase(run: Run, leg: Leg, state: TrainState) -> TrainState:
    """The state a phase starts from: the last one's result, widths sorted, fresh optimiser."""
    variables = opened(run.net.space, jax.device_get(state.result), leg.phase)
    return init_state(run.config, run.devices, variables, leg.first)


def teacher_variables(run: Run, index: int, like: TrainState) -> Tree:
    """The largest net as the first phase left it, or as the run began; zeros where none teaches."""
    phase = run.legs[index].phase
    if not phase.distill or phase.source != "teacher":
        zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like.result)
        return mesh.replicate(run.devices, zeros)
    first = run.legs[0]
    if teaches(run.config, run.net.space):
        return mesh.replicate(run.devices, run.start)
    return checkpoints.restore_step(run.workdir, first.name, first.end, like).result


def compiled_step(run: Run, programs: Programs, *arguments: Any) -> jax.stages.Compiled:
    """The step's program for this resolution, compiled at first use.

    Compiled ahead of time, it refuses other shapes: a silent recompilation cannot happen.
    """
    resolution = arguments[-1]["image"].shape[1]
    if resolution not in programs:
        processes.heartbeat("")
        started = time.monotonic()
        most = max(leg.phase.subnets for leg in run.legs)
        jitted = jit_step(run.net, run.config, most, run.devices, arguments[0])
        programs[resolution] = jitted.lower(*arguments).compile()
        taken = time.monotonic() - started
        print(f"compiled the training step for {resolution} px: {taken:.0f} s", flush=True)
    return programs[resolution]


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
    run: Run, leg: Leg, state: TrainState, log: MetricsLog, speed: dict[str, float] | None = None
) -> None:
    """Prints and logs the held-out accuracy of the phase's own corner subnets, and its speed."""
    choices = leg.phase.choices(run.net.space)
    rows = evaluate_grid(
        run.net, state.result, run.config, run.dataset, run.devices, "held_out", choices
    )
    values = {f"top1/{row['name']}_{row['resolution']}": row["top1"] for row in rows}
    log.write(leg.end, values, leg.name, "held_out")
    worst, mean = min(row["top1"] for row in rows), sum(row["top1"] for row in rows) / len(rows)
    print(
        f"phase {leg.name}: {leg.end - leg.first} steps{_timing(speed) if speed else ''},"
        f" held-out top-1 mean {mean:.2%}, worst {worst:.2%} of {len(rows)} subnets",
        flush=True,
    )


def _timing(speed: dict[str, float]) -> str:
    skipped = f", {speed['skipped_images']} corrupt images skipped"
    return (
        f" in {clock(speed['seconds'])}, waited for data {speed['waited_for_data']:.1%}"
        f"{skipped if speed['skipped_images'] else ''}"
    )
