"""The programs that training is made of, compiled from shapes alone: to weigh and to time them."""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ofa_jax import mesh
from ofa_jax.errors import InputError
from ofa_jax.extras import check_installed
from ofa_jax.network import Network, build_subnet
from ofa_jax.run.config import Config
from ofa_jax.run.metrics import clock
from ofa_jax.run.roofline import Cost, cost_of
from ofa_jax.run.step import fresh_state, jit_step, state_shardings
from ofa_jax.search.cost import macs
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.train.losses import smoothed_cross_entropy
from ofa_jax.train.phases import Phase, phase_data

Tree = Any
TIMED_STEPS = 3
SAMPLES = 1000  # subnets that the mean one is of
TEACHER = "the teacher, forward"
# A random subnet, by `train.compute`.
SUBNET = {
    "masks": "a subnet, masked",
    "branches": "a mean subnet, by branches",
    "widths": "a mean subnet, by widths",
}
SWITCH = "the largest, switched"


class Setting(NamedTuple):
    """A config's net on some devices, attached or only described."""

    config: Config
    net: Network
    devices: Mesh

    @property
    def resolution(self) -> int:
        """The largest one: what fits there fits everywhere."""
        return max(self.config.data.resolutions)

    @property
    def dtype(self) -> str:
        """What its steps compute in."""
        return mesh.best_dtype(self.config.train.dtype, self.devices.devices.flat[0])

    @property
    def part(self) -> int:
        """Images of one device's micro-step."""
        parts = self.devices.size * self.config.parallel.micro_steps
        return self.config.data.batch_size // parts

    @property
    def variables(self) -> Tree:
        """The shapes of the supernet's variables."""
        image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        return jax.eval_shape(self.net.init, jax.random.key(0), image, self.net.space.largest())


def target_mesh(target: str, count: int = 0) -> Mesh:
    """A mesh of described TPUs, such as of "v5e:4x4".

    Raises:
      ValueError: no such topology, or no TPU compiler.
    """
    check_installed(f"--target={target}", "tpu", "libtpu")
    # Else the compiler looks for the machine that it runs on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        topology = topologies.get_topology_desc(target, platform="tpu")
    except (JaxRuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:150]
        if "lockfile" in reason:
            raise InputError(
                f"--target={target!r}: the TPU compiler serves one process at a time: {reason}"
            ) from error
        raise InputError(
            f"--target={target!r}: expected a TPU topology such as v5e:2x2, v5e:16x16, v5p:2x2x2"
            f" or v6e:4x4: {reason}"
        ) from error
    return mesh.data_mesh(count, topology.devices)


# -- the whole step -------------------------------------------------------------------------------


def compile_step(setting: Setting, most: int, arguments: tuple[Any, ...]) -> Any:
    """The training step's program, of up to `most` subnets a part, for `step_arguments`."""
    jitted = jit_step(setting.net, setting.config, most, setting.devices, arguments[0])
    return _compiled("the step", lambda: jitted.lower(*arguments).compile())


def step_arguments(setting: Setting) -> tuple[Any, ...]:
    """The step's arguments as shapes with shardings."""
    config, devices, net = setting.config, setting.devices, setting.net
    size, pixels = config.data.batch_size, setting.resolution
    state = jax.eval_shape(functools.partial(fresh_state, config, step=0), setting.variables)
    state = _on(state_shardings(config, devices, state), state)
    phase = phase_data(Phase(), net.space, 0, images=size, batch_size=size)
    batch = {
        "image": jax.ShapeDtypeStruct((size, pixels, pixels, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    everywhere, split = mesh.replicated(devices), NamedSharding(devices, P(mesh.AXIS))
    return state, _on(everywhere, state.result), _on(everywhere, phase), _on(split, batch)


def _on(shardings: Any, tree: Tree) -> Tree:
    """The shapes of a tree with shardings: one for all, or a tree of them."""
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, shardings
    )


def seconds_of_step(compiled: Any, arguments: tuple[Any, ...], subnets: int, taught: bool) -> float:
    """The median seconds of a step on attached devices, after a first one, on random subnets."""
    state, teacher, phase, batch = jax.tree.map(_ones, arguments)
    phase = phase._replace(subnets=phase.subnets * subnets, distill=phase.distill * taught)
    taken = []
    for _ in range(1 + TIMED_STEPS):
        began = time.monotonic()
        state, _ = jax.block_until_ready(compiled(state, teacher, phase, batch))
        taken.append(time.monotonic() - began)
    return float(np.median(taken[1:]))


def _ones(shape: jax.ShapeDtypeStruct) -> jax.Array:
    ones = np.ones(shape.shape, shape.dtype)
    return jax.make_array_from_callback(shape.shape, shape.sharding, ones.__getitem__)


# -- what a micro-step is made of -----------------------------------------------------------------


def part_costs(setting: Setting) -> dict[str, Cost]:
    """What a micro-step's programs cost on one device: its own, and extracted ones beside them.

    Compiled one by one, as the compiler counts the body of a loop once, however often it runs.
    """
    space, images = setting.net.space, _pixels(setting)
    teacher = build_subnet(space, space.largest())
    way = setting.net.compute
    switched = way != "masks"
    lowered = {
        TEACHER: lambda: _lower(setting, _forward, teacher, setting.variables, images),
        SWITCH if switched else SUBNET["masks"]: lambda: subnet_gradient(setting),
    }
    for name, extracted in (("largest", space.largest()), ("smallest", space.smallest())):
        subnet = build_subnet(space, extracted)
        shapes = jax.eval_shape(subnet.init, jax.random.key(0), images)
        lowered[f"the {name}, extracted"] = functools.partial(
            _lower, setting, _gradient, subnet, shapes, images, _labels(setting)
        )
    costs = {name: cost_of(_compiled(name, lower().compile)) for name, lower in lowered.items()}
    if switched:
        costs[SUBNET[way]] = _mean_switched(setting, costs)
    return costs


def subnet_gradient(setting: Setting) -> jax.stages.Lowered:
    """Forward and backward pass of one subnet, whichever it is, on one device."""
    arch = jax.eval_shape(setting.net.space.largest)
    arguments = (setting.variables, _pixels(setting), _labels(setting), arch)
    return _lower(setting, _gradient, setting.net, *arguments)


def _mean_switched(setting: Setting, costs: dict[str, Cost]) -> Cost:
    """The mean subnet's cost, by its MACs between those of the smallest and the largest.

    A switch counts as its costliest branch, which makes the largest subnet; what the gradient
    computes again is in it, so the extracted ones cost less.
    """
    low, mean, high = macs_of_ends_and_mean(setting)
    share = (mean - low) / ((high - low) or 1.0)  # a space may have one subnet
    smallest, largest = costs["the smallest, extracted"], costs["the largest, extracted"]
    between = smallest.times(1 - share) + largest.times(share)
    switch = costs[SWITCH]
    return Cost(
        flops=between.flops * switch.flops / largest.flops,
        moved=between.moved * switch.moved / largest.moved,
    )


def macs_of_ends_and_mean(setting: Setting) -> tuple[float, float, float]:
    """MACs of the smallest subnet, of the mean of `mean_sample`, and of the largest."""
    space, pixels = setting.net.space, setting.resolution
    archs = (space.smallest(), mean_sample(space), space.largest())
    low, mean, high = (float(np.mean(np.asarray(macs(space, a, pixels), float))) for a in archs)
    return low, mean, high


def mean_sample(space: SearchSpace) -> Arch:
    """A stack of random archs, to take means of."""
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    return jax.device_get(jax.jit(jax.vmap(space.sample))(keys))


def _lower(
    setting: Setting, function: Callable[..., Any], net: Network, *shapes: Any
) -> jax.stages.Lowered:
    alone = mesh.replicated(Mesh(setting.devices.devices.flat[:1], (mesh.AXIS,)))
    return jax.jit(functools.partial(function, net)).lower(*_on(alone, shapes))


def _pixels(setting: Setting) -> jax.ShapeDtypeStruct:
    pixels = (setting.part, setting.resolution, setting.resolution, 3)
    return jax.ShapeDtypeStruct(pixels, setting.dtype)


def _labels(setting: Setting) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((setting.part,), "int32")


def _forward(net: Network, variables: Tree, images: jax.Array) -> jax.Array:
    return net.apply(variables, images, train=True, mutable=["batch_stats"])[0]


def _gradient(
    net: Network, variables: Tree, images: jax.Array, labels: jax.Array, arch: Arch | None = None
) -> Any:
    def loss(params: Tree) -> Any:
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, new = net.apply(both, images, arch, train=True, mutable=["batch_stats"])
        return smoothed_cross_entropy(logits, labels, 0.1), new["batch_stats"]

    return jax.grad(loss, has_aux=True)(variables["params"])


def update_cost(setting: Setting) -> Cost:
    """The optimiser's update, and the sum of the gradients over the devices."""
    weights = sum(leaf.size for leaf in jax.tree.leaves(setting.variables))
    # Parameters, gradient and momentum are read, parameters and momentum written.
    return Cost(flops=6.0 * weights, moved=5 * 4.0 * weights, reduced=4.0 * weights)


def _compiled(name: str, compiling: Callable[[], Any]) -> Any:
    print(f"  compiling {name} ...", end="", flush=True)
    began = time.monotonic()
    try:
        return compiling()
    finally:
        print(f" {clock(time.monotonic() - began)}", flush=True)
