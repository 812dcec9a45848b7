"""What a run will take, before it starts: its space, steps, memory, operations and hours."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.errors import JaxRuntimeError

from ofa_jax import mesh
from ofa_jax.network import best_compute, build_supernet
from ofa_jax.run.config import Config
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.metrics import clock, counted
from ofa_jax.run.plan import Leg, plan
from ofa_jax.run.programs import (
    SAMPLES,
    SUBNET,
    TEACHER,
    Setting,
    compile_step,
    mean_sample,
    part_costs,
    seconds_of_step,
    step_arguments,
    target_mesh,
    update_cost,
)
from ofa_jax.run.roofline import Chip, Cost, chip_of, least, memory_needed, memory_of
from ofa_jax.search.cost import macs, params
from ofa_jax.space import SearchSpace

GB, GFLOP = 1e9, 1e9


class StepKind(NamedTuple):
    """What makes steps cost the same: subnets a part, and whether a teacher is evaluated."""

    subnets: int
    taught: bool

    def __str__(self) -> str:
        return f"{counted(self.subnets, 'subnet')}{' and the teacher' if self.taught else ''}"


Seconds = dict[StepKind, float]


def profile(config: Config, target: str = "") -> None:
    """Prints what a run of the config will take on the attached devices, or on a TPU `target`.

    Space and curriculum are counted; the step is compiled, and on attached devices timed with
    made-up images, where it fits them. No image is read, and nothing is written.

    Args:
      config: the run's configuration.
      target: a TPU topology such as "v5e:2x2", compiled for without having it.

    Raises:
      ValueError: a config that does not fit the data or the devices, or an unknown target.
    """
    images, classes = config.data.size or count(config)
    space = config.search_space(classes)
    wanted = config.parallel.devices
    devices = target_mesh(target, wanted) if target else mesh.data_mesh(wanted)
    mesh.check_batch(devices, config.data.batch_size, config.parallel.micro_steps)
    compute = best_compute(config.train.compute, mesh.platform(devices), space)
    setting = Setting(config, build_supernet(space, compute), devices)
    legs = plan(config, images)
    print_space(space, setting.resolution)
    print_curriculum(config, legs, images)
    kinds = sorted({kind_of(leg) for leg in legs})
    print_heading(setting, "not attached" if target else "attached")
    measured = measure_steps(setting, kinds, run=not target)
    at_least = print_costs(setting, kinds, measured or {})
    if measured is None:
        print("\ntime: not known, as a step does not fit")
    elif not target:
        print_time(config, legs, measured, "the measured")
    elif all(at_least.values()):
        print_time(config, legs, at_least, "the least")


def count(config: Config) -> tuple[int, int]:
    """(training images, classes) of the config's dataset."""
    dataset = load_dataset(config.data)
    return len(dataset.train), len(dataset.class_names)


def kind_of(leg: Leg) -> StepKind:
    """The kind of a phase's steps."""
    return StepKind(leg.phase.subnets, leg.phase.has_teacher_pass)


# -- counted --------------------------------------------------------------------------------------


def print_space(space: SearchSpace, resolution: int) -> None:
    """The number of subnets; MACs and parameters of the ends and of the mean subnet."""
    print(f"\nspace {space.name}: {float(space.size):.2g} subnets")
    print(f"  {f'at {resolution} px':<20} {'MACs':>10} {'parameters':>11}")
    archs = {
        "smallest": space.smallest(),
        f"mean of {SAMPLES:,}": mean_sample(space),
        "largest": space.largest(),
    }
    for name, arch in archs.items():
        operations = np.mean(np.asarray(macs(space, arch, resolution), float)) / 1e6
        weights = np.mean(np.asarray(params(space, arch), float)) / 1e6
        print(f"  {name:<20} {operations:>9,.1f}M {weights:>10,.3f}M")


def print_curriculum(config: Config, legs: Sequence[Leg], images: int) -> None:
    """Steps, images and subnets a part of every phase."""
    batch = config.data.batch_size
    print(f"\ncurriculum: {images:,} training images, {batch:,} a step")
    print(f"  {'phase':<12} {'steps':>9} {'images':>13} {'subnets a part':>15}")
    for leg in legs:
        steps = leg.end - leg.first
        print(f"  {leg.name:<12} {steps:>9,} {steps * batch:>13,} {leg.phase.subnets:>15}")
    print(f"  {'all':<12} {legs[-1].end:>9,} {legs[-1].end * batch:>13,}", flush=True)


# -- compiled -------------------------------------------------------------------------------------


def print_heading(setting: Setting, where: str) -> None:
    """What is compiled, and for what."""
    config, devices = setting.config, setting.devices.devices
    micro = config.parallel.micro_steps
    print(
        f"\n{devices.size} x {devices.flat[0].device_kind}, {where}: {setting.resolution} px,"
        f" {setting.dtype}, {setting.part} images a device"
        f"{f' in each of {micro} micro-steps' if micro > 1 else ''}",
        flush=True,
    )


def measure_steps(setting: Setting, kinds: Sequence[StepKind], run: bool) -> Seconds | None:
    """Prints what memory the step needs and, with `run`, how long each kind of it takes.

    Returns the seconds; None where the step does not fit.
    """
    compiled, arguments = compile_to_fit(setting, kinds, run)
    if compiled is None:
        print("  less fits: more parallel.micro_steps, train.dtype='bfloat16', fewer images a step")
        return None
    measured: Seconds = {}
    for kind in kinds if run else ():
        measured[kind] = seconds_of_step(compiled, arguments, kind.subnets, kind.taught)
        speed = setting.config.data.batch_size / measured[kind]
        print(f"    {kind}: {measured[kind] * 1e3:,.0f} ms, {speed:,.0f} images/s", flush=True)
    return measured


def compile_to_fit(
    setting: Setting, kinds: Sequence[StepKind], attached: bool
) -> tuple[Any | None, tuple[Any, ...]]:
    """The program of all kinds of steps, None where it does not fit; and its arguments."""
    arguments = step_arguments(setting)
    try:
        compiled = compile_step(setting, max(kind.subnets for kind in kinds), arguments)
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"    does not fit: {' '.join(str(error).split())[:300]}")
        return None, arguments
    room, needed = room_on_device(setting, attached), memory_needed(compiled)
    enough = not room or needed <= room
    of = f" of {room / GB:.2f} GB, {'fits' if enough else 'does not fit'}" if room else ""
    print(f"    memory of a device: {needed / GB:.2f} GB{of}", flush=True)
    return compiled if enough else None, arguments


def room_on_device(setting: Setting, attached: bool) -> float | None:
    """Bytes that a step may use on a device; None where that is not known."""
    device = setting.devices.devices.flat[0]
    if not attached:
        chip = chip_of_device(setting)
        return chip.memory if chip else None
    # The devices of a CPU share its memory.
    return memory_of(device) / (setting.devices.size if device.platform == "cpu" else 1)


def chip_of_device(setting: Setting) -> Chip | None:
    """The peak figures of a device, which may be one of a chip's two cores."""
    devices = list(setting.devices.devices.flat)
    chips = {tuple(getattr(device, "coords", (device.id,))) for device in devices}
    return chip_of(devices[0], len(devices) // len(chips))


def print_costs(setting: Setting, kinds: Sequence[StepKind], measured: Seconds) -> Seconds:
    """The costs of a micro-step's programs, beside those of extracted subnets, and of the steps.

    Returns the least seconds of a step by its kind, where the chip's figures are known.
    """
    parts, update = part_costs(setting), update_cost(setting)
    print(f"  {'of one device':<34} {'GFLOP':>10} {'GB moved':>10}  least time and what bounds it")
    for name, cost in {**parts, "update and sum over devices": update}.items():
        print_cost(setting, name, cost)
    subnet = parts[SUBNET[setting.net.compute]]
    seconds: Seconds = {}
    for kind in kinds:
        step = subnet.times(kind.subnets) + parts[TEACHER].times(kind.taught)
        step = step.times(setting.config.parallel.micro_steps) + update
        seconds[kind] = print_cost(setting, f"step of {kind}", step, measured.get(kind, 0.0))
    return seconds


def print_cost(setting: Setting, name: str, cost: Cost, measured: float = 0.0) -> float:
    """One line of the table; returns the least seconds, 0 where the chip is not known."""
    chip, text, seconds = chip_of_device(setting), "", 0.0
    if chip:
        seconds, bound = least(cost, chip, setting.devices.size)
        text = f"  {seconds * 1e3:,.2f} ms, {bound}"
        if measured:
            text += f"; {seconds / measured:.0%} of what was measured"
    print(f"  {name:<34} {cost.flops / GFLOP:>10,.2f} {cost.moved / GB:>10,.3f}{text}", flush=True)
    return seconds


# -- the end --------------------------------------------------------------------------------------


def print_time(config: Config, legs: Sequence[Leg], seconds: Seconds, which: str) -> None:
    """The time of every phase, from the seconds of a step at the largest resolution."""
    sizes = np.asarray(config.data.resolutions, float)
    share = float(np.mean(sizes**2) / np.max(sizes) ** 2)
    print(f"\ntime, by {which} of a step; {share:.0%} of it at the mean of the resolutions")
    total = 0.0
    for leg in legs:
        taken = (leg.end - leg.first) * seconds[kind_of(leg)] * share
        total += taken
        print(f"  {leg.name:<12} {clock(taken):>12}")
    print(f"  {'all':<12} {clock(total):>12}")
