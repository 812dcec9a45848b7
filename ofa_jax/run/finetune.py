"""Fine-tuning: one extracted subnet trained further by itself, at its own resolution."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax

from ofa_jax import checkpoint, mesh, storage
from ofa_jax.errors import InputError
from ofa_jax.files import read_json, write_json
from ofa_jax.network import Network
from ofa_jax.run import checkpoints, processes
from ofa_jax.run.card import CARD, Card, check_images, find_subnet, read_card
from ofa_jax.run.checkpoints import phase_directory, saved_steps
from ofa_jax.run.config import Config
from ofa_jax.run.data.pipeline import train_batches
from ofa_jax.run.evaluate import (
    calibration_images,
    evaluation_batches,
    load_trained,
    normalized,
)
from ofa_jax.run.extract import now, place_of, write_subnet
from ofa_jax.run.feed import Feed
from ofa_jax.run.metrics import MetricsLog, counted
from ofa_jax.run.plan import Leg
from ofa_jax.run.step import init_state
from ofa_jax.run.train import Run, find_checkpoint, put_aside, train_leg
from ofa_jax.run.workdir import claim
from ofa_jax.subnets.calibrate import calibrate
from ofa_jax.subnets.evaluate import measure_one
from ofa_jax.train.phases import Phase

Tree = Any
PHASE = "finetune"  # one phase, of one net


def finetune(
    config: Config, workdir: Path, text: str, name: str = "", overwrite: bool = False
) -> Path:
    """Trains a subnet of the run further and writes it as `subnets/<name>/`, with its own card.

    Run again after an interruption, it resumes from the newest checkpoint.

    Args:
      config: the run's configuration; `config.finetune` says how long.
      workdir: the run's directory, whose largest net teaches.
      text: the subnet's name, or its directory.
      name: of the new subnet; default `<subnet>-finetuned`.
      overwrite: whether a subnet of that name may be replaced.

    Raises:
      ValueError: no such subnet, one of another space, an existing one of the new name, no epochs.
      FloatingPointError: the loss is not finite; the subnet stays as it was.
      Preempted: SIGTERM or SIGHUP came; everything is saved.
    """
    if not config.finetune.epochs:
        raise InputError("finetune.epochs=0.0: expected more, to fine-tune")
    source = find_subnet(workdir, text)
    card = read_card(source)
    directory = place_of(workdir, name or f"{card.name}-finetuned", overwrite)
    subnet, variables = checkpoint.load_subnet(source)
    dataset, space, _, teacher = load_trained(config, workdir)
    if space != subnet.space:
        raise InputError(f"subnet {source} is of another space than {workdir / 'supernet'}")
    check_images(source, card, config.data, dataset.class_names)
    config = alone(config, card.resolution)
    devices = mesh.data_mesh(config.parallel.devices)
    mesh.check_batch(devices, config.data.batch_size, config.parallel.micro_steps)
    own = workdir / "finetune" / directory.name
    with contextlib.ExitStack() as stack:
        processes.from_first(lambda: own.parent.mkdir(exist_ok=True))
        stack.enter_context(claim(own, config, dataset))
        processes.from_first(lambda: check_begun(own, config, card))
        legs = [leg(config, len(dataset.train))]
        run = Run(config, own, dataset, subnet, devices, legs, variables)
        before = figures(run, variables)
        trained = recalibrated(run, train_alone(run, variables, teacher))
        after = figures(run, trained)
        record = {**dataclasses.asdict(config.finetune), "before": before, "after": after}
        new = dataclasses.replace(
            card, name=directory.name, accuracy=after, finetuned={"from": card.name, **record},
            created=now(), exports={}, latency=(), machine={}, files={},
        )  # fmt: skip
        processes.from_first(lambda: _write(directory, own, subnet, trained, new))
    print(
        f"subnet {new.name}: held-out top-1 {before['held_out']['top1']:.2%} before,"
        f" {after['held_out']['top1']:.2%} after {counted(config.finetune.epochs, 'epoch')};"
        f" on test {before['test']['top1']:.2%} and {after['test']['top1']:.2%};"
        f" written to {directory}"
    )
    return directory


def finetune_once(config: Config, workdir: Path, text: str) -> str:
    """Fine-tunes a subnet unless it is done; the new subnet's name."""
    directory = workdir / "subnets" / f"{text}-finetuned"
    if processes.from_first(lambda: storage.is_published(directory, CARD)):
        print(f"subnet {directory.name} exists: {directory}")
    else:
        finetune(config, workdir, text)
    return directory.name


def alone(config: Config, resolution: int) -> Config:
    """The run's configuration for one net at one resolution, taught by another net."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, resolutions=(resolution,)),
        # The supernet's phases may be taught in another way; that of `leg` is the only one here.
        curriculum=(PHASE,),
        phases={PHASE: Phase(distill=0.0)},
    )


def leg(config: Config, images: int) -> Leg:
    """The whole of a fine-tuning as one phase."""
    phase = config.complete(Phase(**dataclasses.asdict(config.finetune), source="teacher"))
    return Leg(PHASE, phase, 0, phase.steps(images, config.data.batch_size))


def train_alone(run: Run, variables: Tree, teacher: Tree) -> Tree:
    """The subnet's variables after all steps, from its own or from the newest checkpoint."""
    newest, broken = find_checkpoint(run.workdir, run.legs)
    processes.from_first(lambda: put_aside(run, broken))
    state = init_state(run.config, run.devices, variables, 0)
    if newest is not None:
        state = checkpoints.restore_step(run.workdir, PHASE, newest.step, state)
        print(f"resumed at step {newest.step} of {run.legs[0].end}", flush=True)
    if int(state.step) == run.legs[0].end:
        return state.result
    part, done = mesh.shard(run.devices), int(state.step)
    batches = train_batches(run.dataset, run.config.data, run.config.seed, done, part)
    log = MetricsLog(run.workdir if processes.is_first() else None, done)
    with contextlib.closing(batches), log:
        feed, teacher = Feed(batches, run.devices), mesh.replicate(run.devices, teacher)
        state, _ = train_leg(run, 0, state, teacher, feed, {}, log)
    return state.result


def recalibrated(run: Run, variables: Tree) -> Tree:
    """The variables with statistics of the trained weights, on the host."""
    config, resolution = run.config, run.config.data.resolutions[0]
    images = calibration_images(config, run.dataset, run.devices, resolution)
    batches = normalized(images, config.data, run.devices)
    stats = calibrate(run.net, variables, None, batches)
    return jax.device_get({"params": variables["params"], "batch_stats": stats})


def figures(run: Run, variables: Tree) -> dict[str, dict[str, float]]:
    """Top-1 and loss on the held-out images and on the test split."""
    config, resolution = run.config, run.config.data.resolutions[0]
    return {
        split: measure_one(
            run.net,
            variables,
            evaluation_batches(config, run.dataset, run.devices, split, resolution),
            config.data.normalization,
            run.devices,
        )
        for split in ("held_out", "test")
    }


def check_begun(own: Path, config: Config, card: Card) -> None:
    """Refuses to go on with other settings, or from another subnet, than it was begun with."""
    path = own / "begun.json"
    wanted = {"finetune": dataclasses.asdict(config.finetune), "subnet": card.files}
    if saved_steps(own, PHASE) and read_json(path) != wanted:
        raise InputError(
            f"{own} was begun with other finetune settings or from another subnet, by {path.name}:"
            " finish it with those, or remove it to start over"
        )
    write_json(path, wanted)


def _write(directory: Path, own: Path, subnet: Network, variables: Tree, card: Card) -> None:
    write_subnet(directory, subnet.space, variables, card)
    storage.discard(phase_directory(own, PHASE))  # metrics stay
