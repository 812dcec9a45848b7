"""What a run will take, before it starts: its space, steps, memory, operations and hours."""

import functools
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ofa_jax import mesh
from ofa_jax.config import Config
from ofa_jax.data.sources import load_dataset
from ofa_jax.metrics import clock
from ofa_jax.models import Network, build_subnet, build_supernet
from ofa_jax.search.cost import macs, params
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.train.losses import smoothed_cross_entropy
from ofa_jax.train.phases import Phase, PhaseData, phase_data
from ofa_jax.train.plan import Leg, plan
from ofa_jax.train.roofline import (
    Chip,
    Cost,
    chip_of,
    cost_of,
    least,
    memory_needed,
    memory_of,
)
from ofa_jax.train.step import fresh_state, jit_step, state_shardings

Tree = Any
SAMPLES = 1000
TIMED_STEPS = 3
GB, GFLOP = 1e9, 1e9
TEACHER, MASKED = "the teacher, forward", "a subnet, masked"


class Setting(NamedTuple):
    """What is profiled: a config's net on some devices, attached or only described."""

    config: Config
    net: Network
    devices: Mesh
    images: int  # training images
    chip: Chip | None

    @property
    def resolution(self) -> int:
        """The largest one: what fits there fits everywhere."""
        return max(self.config.data.resolutions)

    @property
    def part(self) -> int:
        """Images of one device's micro-step."""
        parts = self.devices.size * self.config.parallel.micro_steps
        return self.config.data.batch_size // parts


class StepKind(NamedTuple):
    """What makes steps cost the same: subnets a part, and whether a teacher is asked."""

    subnets: int
    taught: bool

    def __str__(self) -> str:
        return f"{self.subnets} subnets{' and the teacher' if self.taught else ', no teacher'}"


Seconds = dict[StepKind, float]


def step_kind(leg: Leg) -> StepKind:
    """The kind of a phase's steps."""
    return StepKind(leg.phase.subnets, leg.phase.distill > 0)


def profile(config: Config, target: str = "") -> None:
    """Prints what a run of the config will take on the attached devices, or on a TPU `target`.

    Space and curriculum are counted; the step is compiled, and on attached devices timed with
    random images, where it fits them. No image is read, and nothing is written.

    Args:
      config: the run's configuration.
      target: a TPU topology such as "v5e:2x2", compiled for without having it.

    Raises:
      ValueError: a config that does not fit the data or the devices, or an unknown target.
    """
    images, classes = config.data.size or _count(config)
    space = config.search_space(classes)
    devices = target_mesh(target, config.parallel.devices) if target else None
    devices = devices or mesh.data_mesh(config.parallel.devices)
    mesh.check_batch(devices, config.data.batch_size, config.parallel.micro_steps)
    chips = {tuple(getattr(d, "coords", (d.id,))) for d in devices.devices.flat}
    chip = chip_of(devices.devices.flat[0], devices.size // len(chips))
    setting = Setting(config, build_supernet(space), devices, images, chip)
    legs = plan(config, images)
    print_space(space, setting.resolution)
    print_curriculum(setting, legs)
    kinds = sorted({step_kind(leg) for leg in legs})
    seconds = profile_target(setting, kinds) if target else profile_attached(setting, kinds)
    print_hours(setting, legs, seconds, "the least" if target else "the measured")


def _count(config: Config) -> tuple[int, int]:
    dataset = load_dataset(config.data)
    return len(dataset.train), len(dataset.class_names)


def target_mesh(target: str, count: int = 0) -> Mesh:
    """A mesh of described TPUs, such as of "v5e:4x4".

    Raises:
      ValueError: no such topology, or no TPU compiler.
    """
    if not importlib.util.find_spec("libtpu"):
        raise ValueError("--target needs the TPU compiler: pip install -e '.[tpu]'")
    # Else the compiler looks for the machine that it runs on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        topology = topologies.get_topology_desc(target, platform="tpu")
    except (JaxRuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(
            f"--target={target!r}: expected a TPU topology such as v5e:2x2, v5e:16x16, v5p:2x2x2"
            f" or v6e:4x4: {reason}"
        ) from error
    return mesh.data_mesh(count, topology.devices)


# -- counted --------------------------------------------------------------------------------------


def print_space(space: SearchSpace, resolution: int) -> None:
    """The number of subnets; MACs and parameters of the ends and of the mean subnet."""
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    sampled = jax.device_get(jax.jit(jax.vmap(space.sample))(keys))
    print(f"\nspace {space.name}: {float(space.size):.2g} subnets")
    print(f"  {f'at {resolution} px':<20} {'MACs':>10} {'parameters':>11}")
    archs = {"smallest": space.smallest(), "mean of 1,000": sampled, "largest": space.largest()}
    for name, arch in archs.items():
        operations = np.mean(np.asarray(macs(space, arch, resolution), float)) / 1e6
        weights = np.mean(np.asarray(params(space, arch), float)) / 1e6
        print(f"  {name:<20} {operations:>9,.1f}M {weights:>10,.3f}M")


def print_curriculum(setting: Setting, legs: Sequence[Leg]) -> None:
    """Steps, images and subnet passes of every phase."""
    batch = setting.config.data.batch_size
    print(f"\ncurriculum: {setting.images:,} training images, {batch:,} a step")
    print(f"  {'phase':<12} {'steps':>9} {'images':>13} {'subnets a part':>15}")
    for leg in legs:
        steps = leg.end - leg.first
        print(f"  {leg.name:<12} {steps:>9,} {steps * batch:>13,} {leg.phase.subnets:>15}")
    print(f"  {'all':<12} {legs[-1].end:>9,} {legs[-1].end * batch:>13,}", flush=True)


# -- compiled -------------------------------------------------------------------------------------


def profile_attached(setting: Setting, kinds: Sequence[StepKind]) -> Seconds | None:
    """Memory and seconds of each distinct step, timed; None where one does not fit."""
    device = setting.devices.devices.flat[0]
    room = memory_of(device)
    # Devices of a CPU share its memory.
    room /= setting.devices.size if device.platform == "cpu" else 1
    print_heading(setting, f"{device.device_kind}, attached")
    found: Seconds = {}
    for subnets in sorted({kind.subnets for kind in kinds}):
        arguments = step_arguments(setting)
        compiled = compile_step(setting, subnets, arguments)
        needed = memory_needed(compiled)
        print_memory(f"step of {subnets} subnets a part", needed, room)
        if needed > room:
            return None
        for kind in kinds:
            if kind.subnets == subnets:
                found[kind] = timed(compiled, filled(arguments), kind)
                speed = setting.config.data.batch_size / found[kind]
                print(f"    {kind}: {found[kind] * 1e3:,.0f} ms, {speed:,.0f} images/s", flush=True)
    print_parts(setting, kinds, found)
    return found


def profile_target(setting: Setting, kinds: Sequence[StepKind]) -> Seconds | None:
    """Memory and least seconds of each distinct step; None where one does not fit."""
    device = setting.devices.devices.flat[0]
    print_heading(setting, f"{device.device_kind}, not attached")
    room, fits = (setting.chip.memory if setting.chip else float("inf")), True
    for subnets in sorted({kind.subnets for kind in kinds}):
        name = f"step of {subnets} subnets a part"
        try:
            compiled = compile_step(setting, subnets, step_arguments(setting))
        except JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = " ".join(str(error).split())
            print(f"  {name}: does not fit; more parallel.micro_steps need less: {reason[:300]}")
            fits = False
            continue
        print_memory(name, memory_needed(compiled), room)
    seconds = print_parts(setting, kinds, {})
    return seconds if fits else None


def print_heading(setting: Setting, where: str) -> None:
    """What is compiled, and for what."""
    config = setting.config
    micro = config.parallel.micro_steps
    print(
        f"\ncompiled for {setting.devices.size} x {where}: {setting.resolution} px,"
        f" {config.train.dtype}, {setting.part} images a device"
        f"{f' in each of {micro} micro-steps' if micro > 1 else ''}",
        flush=True,
    )


def print_memory(name: str, needed: float, room: float) -> None:
    """One line: what a step needs of a device's memory, and whether that fits."""
    fits = "fits" if needed <= room else "does not fit; more parallel.micro_steps need less"
    print(f"  {name}: {needed / GB:.2f} GB of {room / GB:.1f} GB a device, {fits}", flush=True)


def step_arguments(setting: Setting) -> tuple[Any, ...]:
    """The step's arguments as shapes with shardings."""
    config, devices, net = setting.config, setting.devices, setting.net
    state = jax.eval_shape(lambda variables: fresh_state(config, variables, 0), _variables(setting))
    state = _on(state_shardings(config, devices, state), state)
    data: PhaseData = phase_data(Phase(), net.space, 0, setting.images, config.data.batch_size)
    everywhere, split = mesh.replicated(devices), NamedSharding(devices, P(mesh.AXIS))
    batch = {
        "image": jax.ShapeDtypeStruct(
            (config.data.batch_size, setting.resolution, setting.resolution, 3), jnp.uint8
        ),
        "label": jax.ShapeDtypeStruct((config.data.batch_size,), jnp.int32),
    }
    return state, _on(everywhere, state.result), _on(everywhere, data), _on(split, batch)


def _variables(setting: Setting) -> Tree:
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    net = setting.net
    return jax.eval_shape(net.init, jax.random.key(0), image, net.space.largest())


def _on(shardings: Any, tree: Tree) -> Tree:
    """The shapes of a tree with shardings: one for all, or a tree of them."""
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, shardings
    )


def compile_step(setting: Setting, subnets: int, arguments: tuple[Any, ...]) -> jax.stages.Compiled:
    """The training step's program."""
    jitted = jit_step(setting.net, setting.config, subnets, setting.devices, arguments[0])
    return _compiled(f"the step of {subnets} subnets", lambda: jitted.lower(*arguments).compile())


def _compiled(name: str, compiling: Callable[[], jax.stages.Compiled]) -> jax.stages.Compiled:
    print(f"  compiling {name} ...", end="", flush=True)
    began = time.monotonic()
    try:
        return compiling()
    finally:
        print(f" {clock(time.monotonic() - began)}", flush=True)


def filled(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arrays of ones in the place of shapes: timing needs no better ones."""
    return jax.tree.map(
        lambda a: jax.make_array_from_callback(
            a.shape, a.sharding, lambda index: np.ones(a.shape, a.dtype)[index]
        ),
        arguments,
    )


def timed(compiled: jax.stages.Compiled, arguments: tuple[Any, ...], kind: StepKind) -> float:
    """The median seconds of a step of a kind, after a first one."""
    state, teacher, data, batch = arguments
    data = data._replace(distill=data.distill * kind.taught)
    taken = []
    for _ in range(1 + TIMED_STEPS):
        began = time.monotonic()
        state, _ = jax.block_until_ready(compiled(state, teacher, data, batch))
        taken.append(time.monotonic() - began)
    return float(np.median(taken[1:]))


# -- of what a step is made -----------------------------------------------------------------------


def print_parts(setting: Setting, kinds: Sequence[StepKind], measured: Seconds) -> Seconds | None:
    """The costs of a micro-step's programs, masked beside extracted, and of the steps.

    Returns the least seconds of a step by its kind, where the chip's figures are known.
    """
    costs = {name: part_cost(setting, name, program) for name, program in parts(setting).items()}
    print(f"  {'on one device':<34} {'GFLOP':>10} {'GB moved':>9}  least time, bound by")
    for name, cost in costs.items():
        print_cost(setting, name, cost)
    weights = sum(leaf.size for leaf in jax.tree.leaves(_variables(setting)))
    # Parameters, gradient and momentum are read, parameters and momentum written.
    update = Cost(4.0 * weights, 5 * 4.0 * weights, 4.0 * weights)
    print_cost(setting, "update and sum over devices", update)
    seconds: Seconds = {}
    for kind in kinds:
        step = costs[MASKED].times(kind.subnets) + costs[TEACHER].times(kind.taught)
        step = step.times(setting.config.parallel.micro_steps) + update
        print_cost(setting, f"step of {kind}", step, measured.get(kind))
        if setting.chip:
            seconds[kind] = least(step, setting.chip, setting.devices.size)[0]
    return seconds or None


def print_cost(setting: Setting, name: str, cost: Cost, measured: float | None = None) -> None:
    """One line of the table."""
    text = ""
    if setting.chip:
        time_, bound = least(cost, setting.chip, setting.devices.size)
        text = f"  {time_ * 1e3:,.2f} ms, {bound}"
        if measured:
            text += f", {time_ / measured:.0%} of what was measured"
    print(f"  {name:<34} {cost.flops / GFLOP:>10,.2f} {cost.moved / GB:>9,.3f}{text}", flush=True)


def parts(setting: Setting) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What a micro-step does on one device, each as a function and its shapes."""
    net, space = setting.net, setting.net.space
    variables = _variables(setting)
    image = jax.ShapeDtypeStruct(
        (setting.part, setting.resolution, setting.resolution, 3), setting.config.train.dtype
    )
    label = jax.ShapeDtypeStruct((setting.part,), jnp.int32)
    arch = jax.eval_shape(space.largest)
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        TEACHER: (functools.partial(_forward, net), (variables, image, arch)),
        MASKED: (functools.partial(_gradient, net), (variables, image, label, arch)),
    }
    for name, extracted in (("largest", space.largest()), ("smallest", space.smallest())):
        subnet = build_subnet(space, extracted)
        shapes = jax.eval_shape(subnet.init, jax.random.key(0), image)
        programs[f"the {name}, extracted"] = (
            functools.partial(_gradient, subnet),
            (shapes, image, label),
        )
    return programs


def _forward(net: Network, variables: Tree, images: jax.Array, arch: Arch) -> jax.Array:
    return net.apply(variables, images, arch, train=True, mutable=["batch_stats"])[0]


def _gradient(
    net: Network, variables: Tree, images: jax.Array, labels: jax.Array, arch: Arch | None = None
) -> Any:
    def loss(params: Tree) -> Any:
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, new = net.apply(both, images, arch, train=True, mutable=["batch_stats"])
        return smoothed_cross_entropy(logits, labels, 0.1), new["batch_stats"]

    return jax.grad(loss, has_aux=True)(variables["params"])


def part_cost(
    setting: Setting, name: str, program: tuple[Callable[..., Any], tuple[Any, ...]]
) -> Cost:
    """What the compiler counts for a program on the first device alone."""
    function, shapes = program
    alone = mesh.replicated(Mesh(setting.devices.devices.flat[:1], (mesh.AXIS,)))
    lowered = jax.jit(function).lower(*_on(alone, shapes))
    return cost_of(_compiled(name, lowered.compile))


# -- the end --------------------------------------------------------------------------------------


def print_hours(setting: Setting, legs: Sequence[Leg], seconds: Seconds | None, which: str) -> None:
    """The hours of every phase, from the seconds of a step at the largest resolution."""
    if seconds is None:
        print("\ntime: not known, as the step does not fit, or the chip's figures are not known")
        return
    sizes = np.asarray(setting.config.data.resolutions, float)
    share = float(np.mean(sizes**2) / np.max(sizes) ** 2)
    print(f"\ntime by {which} of a step, {share:.0%} of it at the mean of the resolutions")
    total = 0.0
    for leg in legs:
        taken = (leg.end - leg.first) * seconds[step_kind(leg)] * share
        total += taken
        print(f"  {leg.name:<12} {clock(taken):>12}")
    print(f"  {'all':<12} {clock(total):>12}")
