"""One training step: draw subnets, distil each from the teacher, sum their gradients, update.

The step is a pure function. What differs between phases enters as `PhaseData`, the number of
subnets included, so one program for each resolution serves the whole curriculum. Each device takes
its part of the batch, in micro-steps; a part trains subnets of its own, and parts are averaged.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ofa_jax import mesh
from ofa_jax.config import Config
from ofa_jax.data.transforms import normalize_images
from ofa_jax.models import Network, build_subnet, is_supernet
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.train import losses
from ofa_jax.train.mix import mix
from ofa_jax.train.phases import PhaseData, draw_archs, learning_rate, ramp

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step changes: the run's step, the variables, the optimiser's state, the average.

    `ema` is the moving average of the parameters in this phase; None where there is none.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    ema: Tree | None = None

    @property
    def result(self) -> Tree:
        """The variables that a phase leaves: its average where there is one."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, "batch_stats": self.batch_stats}


def optimizer(config: Config) -> optax.GradientTransformation:
    """The optimiser without the learning rate.

    "sgd" is the reference's: coupled decay, then Nesterov momentum. Parameters whose path contains
    "bn" or "bias" are not decayed; kernel transforms are.
    """
    train = config.train
    decay = optax.add_decayed_weights(train.weight_decay, mask=decayed)
    clip = [optax.clip_by_global_norm(train.clip)] if train.clip else []
    if train.optimizer == "adamw":
        return optax.chain(*clip, optax.scale_by_adam(b1=train.momentum), decay)
    return optax.chain(*clip, decay, optax.trace(train.momentum, nesterov=True))


def decayed(params: Tree) -> Tree:
    """True for every parameter that takes weight decay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(s in jax.tree_util.keystr(path) for s in ("bn", "bias")), params
    )


def init_state(config: Config, devices: Mesh, variables: Tree, step: int) -> TrainState:
    """The state at the start of a phase, `fresh_state`, on the devices."""
    state = fresh_state(config, variables, step)
    return mesh.place(state, state_shardings(config, devices, state))


def fresh_state(config: Config, variables: Tree, step: int) -> TrainState:
    """Given variables, a fresh optimiser and, where the config wants one, a fresh average."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    ema = jax.tree.map(jnp.copy, params) if config.train.ema else None
    return TrainState(jnp.int32(step), params, batch_stats, optimizer(config).init(params), ema)


def state_shardings(config: Config, devices: Mesh, state: TrainState) -> TrainState:
    """Where each array of a state lies: on every device, or the optimiser's spread over them."""
    everywhere = jax.tree.map(lambda _: mesh.replicated(devices), state)
    if not config.parallel.shard_optimizer:
        return everywhere
    spread = jax.tree.map(functools.partial(mesh.spread, devices), state.opt_state)
    return dataclasses.replace(everywhere, opt_state=spread)


def jit_step(
    net: Network, config: Config, most: int, devices: Mesh, state: TrainState
) -> jax.stages.Wrapped:
    """`train_step` of state, teacher, phase and batch, for a state of these shapes."""

    def step(state: TrainState, teacher: Tree, phase: PhaseData, batch: Any) -> Any:
        return train_step(net, config, most, devices, state, teacher, phase, batch)

    out_shardings = (state_shardings(config, devices, state), mesh.replicated(devices))
    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def train_step(
    net: Network,
    config: Config,
    most: int,
    devices: Mesh,
    state: TrainState,
    teacher: Tree,
    phase: PhaseData,
    batch: dict[str, jax.Array],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Trains freshly drawn subnets on one batch, spread over the devices.

    Args:
      net: the supernet, or a subnet that is trained by itself (static).
      config: the run's configuration (static).
      most: the largest number of subnets a phase trains on each part of the batch (static).
      devices: the mesh (static); each device has `config.parallel.micro_steps` parts.
      state: donated.
      teacher: the frozen variables of the largest net, unused where `phase.distill` is 0.
      phase: the phase as data.
      batch: "image" `[batch, height, width, 3]` uint8 and "label" `[batch]` int32.

    Returns:
      The new state and metrics: mean loss and accuracy of the subnets, gradient norm, rate.
    """
    # Every random number comes from the seed and the step, so a resumed run repeats none.
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    parts = devices.size * config.parallel.micro_steps
    split = P(mesh.AXIS)
    gradient, batch_stats, loss, accuracy = jax.shard_map(
        functools.partial(_device_gradient, net, config),
        mesh=devices,
        in_specs=(P(), P(), P(), P(), split, split),
        out_specs=P(),
    )(
        {"params": state.params, "batch_stats": state.batch_stats},
        teacher,
        phase,
        ramp(phase, state.step),
        draw_parts(net.space, config, phase, key, most, parts),
        batch,
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a number to the power of its count
        updates, opt_state = optimizer(config).update(gradient, state.opt_state, state.params)
    rate = learning_rate(phase, state.step)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    metrics = {
        "loss": loss,
        "accuracy": accuracy,
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": rate,
    }
    ema = _average(config.train.ema, phase, state, params)
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics


def draw_parts(
    space: SearchSpace, config: Config, phase: PhaseData, key: jax.Array, most: int, parts: int
) -> tuple[Arch, jax.Array]:
    """The archs and dropout keys of a step, `[parts, most, ...]`; a phase may train fewer."""
    arch_key, dropout_key = jax.random.split(key)
    dropout_keys = jax.random.split(dropout_key, (parts, most))
    draws = parts if config.parallel.subnets == "own" else 1
    draw = functools.partial(draw_archs, space, phase)
    archs = jax.vmap(draw)(jax.random.split(arch_key, (draws, most)))
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (parts, *a.shape[1:])), archs), dropout_keys


def _device_gradient(
    net: Network, config: Config, variables: Tree, teacher: Tree, phase: PhaseData,
    others: jax.Array, drawn: tuple[Arch, jax.Array], batch: dict[str, jax.Array],
) -> tuple[Tree, Tree, jax.Array, jax.Array]:  # fmt: skip
    """One device's share of a step, then the mean over all of them.

    Returns (gradient, running statistics, loss, accuracy), each a mean over the parts; gradients
    are summed over the subnets of a part.
    """
    # As this device's own, so that nothing is summed over devices before the end.
    variables, teacher = jax.lax.pcast((variables, teacher), mesh.AXIS, to="varying")
    if config.parallel.statistics == "global":
        # Branches may not meet over devices, as each device may take another.
        net = net.clone(norm_axis=mesh.AXIS, compute="masks")
    part_gradient = functools.partial(
        _part_gradient, net, config, variables, teacher, phase, others
    )
    micro_steps = config.parallel.micro_steps
    micro_batches = jax.tree.map(lambda a: a.reshape(micro_steps, -1, *a.shape[1:]), batch)

    def add_part(total: Tree, part: Any) -> tuple[Tree, Any]:
        gradient, batch_stats, loss, accuracy = part_gradient(*part)
        return jax.tree.map(jnp.add, total, (gradient, batch_stats)), (loss, accuracy)

    zero = jax.tree.map(jnp.zeros_like, (variables["params"], variables["batch_stats"]))
    total, figures = jax.lax.scan(add_part, zero, (drawn, micro_batches))
    means = (*jax.tree.map(lambda a: a / micro_steps, total), *(f.mean() for f in figures))
    return jax.lax.pmean(means, mesh.AXIS)


def _part_gradient(
    net: Network, config: Config, variables: Tree, teacher: Tree, phase: PhaseData,
    others: jax.Array, drawn: tuple[Arch, jax.Array], batch: dict[str, jax.Array],
) -> tuple[Tree, Tree, jax.Array, jax.Array]:  # fmt: skip
    """A part's gradient, summed over its subnets, its running statistics, loss and accuracy.

    The gradients of all `others` than the largest, the first of a sandwich, have that weight.
    """
    images = normalize_images(batch["image"], config.data.mean, config.data.std)
    labels = jax.nn.one_hot(batch["label"], net.space.num_classes, dtype=jnp.float32)
    varied = config.data.augment
    mix_key = jax.random.fold_in(drawn[1][0], 0)
    images, labels = mix(mix_key, images, labels, varied.mixup, varied.cutmix)
    images = images.astype(config.train.dtype)
    # The largest net of a sandwich comes first, and its own pass is what the others learn from.
    first_teaches = phase.in_place & phase.sandwich
    targets = _teacher_logits(net, phase, variables, teacher, images)

    def subnet_loss(
        params: Tree, batch_stats: Tree, targets: jax.Array, teaches: jax.Array, arch: Arch,
        key: jax.Array,
    ) -> Any:  # fmt: skip
        logits, new = net.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            arch if is_supernet(net) else None,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        taught = (phase.distill > 0) & ~teaches
        loss = _loss(config, phase, taught, logits, labels, targets)
        right = logits.argmax(-1).astype(jnp.int32) == batch["label"]
        accuracy = right.mean(dtype=jnp.float32)
        return loss, (new["batch_stats"], accuracy, logits)

    def add_subnet(row: jax.Array, carry: Any) -> Any:
        total, batch_stats, targets, figures = carry
        teaches, own = first_teaches & (row == 0), jax.tree.map(lambda rows: rows[row], drawn)
        (loss, (batch_stats, accuracy, logits)), gradient = jax.value_and_grad(
            subnet_loss, has_aux=True
        )(variables["params"], batch_stats, targets, teaches, *own)
        weight = jnp.where(row == 0, 1, others)
        total = jax.tree.map(lambda a, b: a + weight * b, total, gradient)
        targets = jnp.where(teaches, logits.astype(jnp.float32), targets)
        return total, batch_stats, targets, figures + jnp.stack([loss, accuracy])

    zero = jax.tree.map(jnp.zeros_like, variables["params"])
    figures = jax.lax.pcast(jnp.zeros(2, jnp.float32), mesh.AXIS, to="varying")
    # A loop of traced length: phases of any number of subnets share the program.
    gradient, batch_stats, _, figures = jax.lax.fori_loop(
        0, phase.subnets, add_subnet, (zero, variables["batch_stats"], targets, figures)
    )
    loss, accuracy = figures / phase.subnets.astype(jnp.float32)
    return gradient, batch_stats, loss, accuracy


def _loss(
    config: Config, phase: PhaseData, taught: jax.Array, logits: jax.Array, labels: jax.Array,
    targets: jax.Array,
) -> jax.Array:  # fmt: skip
    """A subnet's loss: from the labels, and from the teacher's logits where it is taught."""
    unsmoothed = taught & (not config.distill.smooth_labels)
    smoothing = jnp.where(unsmoothed, 0.0, config.train.label_smoothing)
    by_labels = losses.smoothed_cross_entropy(logits, labels, smoothing)
    by_teacher = losses.distillation(phase.loss, logits, targets, config.distill.temperature)
    return jnp.where(taught, phase.distill * by_teacher + phase.labels * by_labels, by_labels)


def _teacher_logits(
    net: Network, phase: PhaseData, variables: Tree, teacher: Tree, images: jax.Array
) -> jax.Array:
    """What a phase's subnets learn from, `[batch, classes]`; zeros where no pass is needed for it.

    The largest net by itself: no masks, and no branches to compile. Batch statistics, as the
    reference's teacher in train mode; no dropout key, so no dropout.
    """
    if is_supernet(net):
        teacher = jax.tree.map(lambda a, b: jnp.where(phase.in_place, b, a), teacher, variables)
    with jax.ensure_compile_time_eval():
        largest = build_subnet(net.space, net.space.largest()).clone(norm_axis=net.norm_axis)

    def logits(teacher: Tree, images: jax.Array) -> jax.Array:
        return largest.apply(teacher, images, train=True, mutable=["batch_stats"])[0]

    def nothing(_: Tree, images: jax.Array) -> jax.Array:
        shape = (images.shape[0], net.space.num_classes)
        return jnp.zeros_like(images, shape=shape, dtype=jnp.float32)

    needed = (phase.distill > 0) & ~(phase.in_place & phase.sandwich)
    return jax.lax.cond(needed, logits, nothing, jax.lax.stop_gradient(teacher), images)


def _average(decay: float, phase: PhaseData, state: TrainState, params: Tree) -> Tree | None:
    """The moving average after a step; it forgets faster at a phase's start, to leave it behind."""
    if state.ema is None:
        return None
    done = (state.step - phase.first_step).astype(jnp.float32)
    return optax.incremental_update(
        params, state.ema, 1 - jnp.minimum(decay, (1 + done) / (10 + done))
    )
