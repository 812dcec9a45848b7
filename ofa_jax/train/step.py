"""One training step: draw subnets, distil each from the teacher, sum their gradients, update.

The step is a pure function. What differs between phases enters as `PhaseData`, the number of
subnets included, so one program for each resolution serves the whole curriculum. Each device takes
its part of the batch, in micro-steps; a part trains subnets of its own, and parts are averaged.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ofa_jax.errors import InputError
from ofa_jax.mesh import AXIS, data_mesh, replicate, replicated
from ofa_jax.network import Network, build_subnet, is_supernet
from ofa_jax.normalization import IMAGENET, Normalization, normalize_images
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.train import losses
from ofa_jax.train.mix import mix
from ofa_jax.train.phases import PhaseData, draw_archs, learning_rate, ramp

Tree = Any
Batch = dict[str, jax.Array]


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


def init_state(
    variables: Tree,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh | None = None,
    step: int = 0,
    ema: bool = False,
) -> TrainState:
    """The state at the start of a phase, a copy on every device.

    Args:
      variables: {"params", "batch_stats"}; untouched.
      optimizer: as `make_train_step` has it; it starts afresh.
      mesh: as `make_train_step` has it; default all devices.
      step: the run's step at which the phase begins.
      ema: whether a moving average of the parameters is taken, as by `make_train_step(ema=...)`.
    """
    devices = data_mesh() if mesh is None else mesh
    return replicate(devices, fresh_state(variables, optimizer, step, ema))


def fresh_state(
    variables: Tree, optimizer: optax.GradientTransformation, step: int, ema: bool
) -> TrainState:
    """`init_state`, wherever the variables are; inside `jit` too."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.int32(step), params, batch_stats, optimizer.init(params), average)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How subnets learn from a teacher's logits; how much, and from whom, a `Phase` says.

    Attributes:
      temperature: by which logits are divided before they are compared.
      smooth_labels: whether what is taught has smoothed labels too.
    """

    temperature: float = 1.0
    smooth_labels: bool = True


class Settings(NamedTuple):
    """What is static in a step, beside the network; `make_train_step` says what each is."""

    optimizer: optax.GradientTransformation
    devices: Mesh
    distillation: Distillation
    most: int
    seed: int
    label_smoothing: float
    ema: float
    normalization: Normalization
    dtype: str
    mixup: float
    cutmix: float
    micro_steps: int
    subnets: str
    statistics: str


def make_train_step(
    net: Network,
    *,
    optimizer: optax.GradientTransformation,
    distillation: Distillation = Distillation(),
    mesh: Mesh | None = None,
    opt_state_sharding: Tree | None = None,
    most: int = 1,
    seed: int = 0,
    label_smoothing: float = 0.1,
    ema: float = 0.0,
    normalization: Normalization = IMAGENET,
    dtype: str = "float32",
    mixup: float = 0.0,
    cutmix: float = 0.0,
    micro_steps: int = 1,
    subnets: str = "own",
    statistics: str = "own",
) -> jax.stages.Wrapped:
    """A jitted training step: `step(state, teacher, phase, batch)` gives the new state and metrics.

    The step is pure. It samples subnets by the phase, distils each from the teacher, sums their
    gradients and updates; every random number follows from `seed` and the state's step. Its
    arguments: a `TrainState`, donated; the frozen variables of the largest net, unused where
    `phase.distill` is 0; `phase_data(...)`; and {"image": `[batch, height, width, 3]` uint8,
    "label": `[batch]` int32}. Metrics are the mean loss and accuracy of the subnets, the norm of
    the gradient and the learning rate. One compilation for each image size serves all phases.

    Args:
      net: a supernet, or a subnet that is trained by itself.
      optimizer: without a learning rate, such as `sgd()`.
      distillation: how subnets learn from the teacher's logits.
      mesh: devices over which each batch is split; default all of them.
      opt_state_sharding: where the optimiser's state lies, as its tree; default on every device.
      most: the largest number of subnets that a phase trains on each part of a batch.
      seed: of all random numbers.
      label_smoothing: share of a label that is spread over all classes.
      ema: share of itself that a moving average of the parameters keeps at each step; 0 takes none.
      normalization: of the images.
      dtype: what networks compute in, "float32" or "bfloat16".
      mixup: alpha of Mixup's Beta distribution; 0 is without.
      cutmix: alpha of CutMix's; 0 is without.
      micro_steps: parts of the batch that each device goes through one after the other.
      subnets: each part samples its "own", or all train the "same".
      statistics: batch statistics are of the part's "own" images, or "global", of all devices'
        images in the same micro-step, which needs `subnets` "same".

    Raises:
      ValueError: global statistics of different subnets.
    """
    if statistics == "global" and subnets != "same":
        raise InputError(f"statistics='global' needs subnets='same', found {subnets!r}")
    devices = data_mesh() if mesh is None else mesh
    settings = Settings(
        optimizer, devices, distillation, most, seed, label_smoothing, ema, normalization, dtype,
        mixup, cutmix, micro_steps, subnets, statistics,
    )  # fmt: skip
    return jit_step(net, settings, opt_state_sharding)


def jit_step(
    net: Network, settings: Settings, opt_state_sharding: Tree | None = None
) -> jax.stages.Wrapped:
    """`train_step` of these settings, compiled at its first call, as `make_train_step` says."""

    def step(state: TrainState, teacher: Tree, phase: PhaseData, batch: Batch) -> Any:
        return train_step(net, settings, state, teacher, phase, batch)

    everywhere: Any = replicated(settings.devices)
    sharding = everywhere
    if opt_state_sharding is not None:
        sharding = TrainState(everywhere, everywhere, everywhere, opt_state_sharding, everywhere)
    return jax.jit(step, donate_argnums=0, out_shardings=(sharding, everywhere))


def train_step(
    net: Network,
    settings: Settings,
    state: TrainState,
    teacher: Tree,
    phase: PhaseData,
    batch: Batch,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Trains freshly sampled subnets on one batch, as `make_train_step` says.

    `net` and `settings` are static.
    """
    # Every random number comes from the seed and the step, so a resumed run repeats none.
    key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
    parts = settings.devices.size * settings.micro_steps
    split = P(AXIS)
    gradient, batch_stats, loss, accuracy = jax.shard_map(
        functools.partial(_device_gradient, net, settings),
        mesh=settings.devices,
        in_specs=(P(), P(), P(), P(), split, split),
        out_specs=P(),
    )(
        {"params": state.params, "batch_stats": state.batch_stats},
        teacher,
        phase,
        ramp(phase, state.step),
        draw_parts(net.space, settings, phase, key, parts),
        batch,
    )
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a number to the power of its count
        updates, opt_state = settings.optimizer.update(gradient, state.opt_state, state.params)
    rate = learning_rate(phase, state.step)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    metrics = {
        "loss": loss,
        "accuracy": accuracy,
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": rate,
    }
    ema = _average(settings.ema, phase, state, params)
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics


def draw_parts(
    space: SearchSpace, settings: Settings, phase: PhaseData, key: jax.Array, parts: int
) -> tuple[Arch, jax.Array]:
    """The archs and dropout keys of a step, `[parts, most, ...]`; a phase may train fewer."""
    most = settings.most
    arch_key, dropout_key = jax.random.split(key)
    dropout_keys = jax.random.split(dropout_key, (parts, most))
    draws = parts if settings.subnets == "own" else 1
    draw = functools.partial(draw_archs, space, phase)
    archs = jax.vmap(draw)(jax.random.split(arch_key, (draws, most)))
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (parts, *a.shape[1:])), archs), dropout_keys


def _device_gradient(
    net: Network, settings: Settings, variables: Tree, teacher: Tree, phase: PhaseData,
    others: jax.Array, samples: tuple[Arch, jax.Array], batch: dict[str, jax.Array],
) -> tuple[Tree, Tree, jax.Array, jax.Array]:  # fmt: skip
    """One device's share of a step, then the mean over all of them.

    Returns (gradient, running statistics, loss, accuracy), each a mean over the parts; gradients
    are summed over the subnets of a part.
    """
    # As this device's own, so that nothing is summed over devices before the end.
    variables, teacher = jax.lax.pcast((variables, teacher), AXIS, to="varying")
    if settings.statistics == "global":
        # Branches may not meet over devices, as each device may take another.
        net = net.clone(norm_axis=AXIS, compute="masks")
    part_gradient = functools.partial(
        _part_gradient, net, settings, variables, teacher, phase, others
    )
    micro_steps = settings.micro_steps
    micro_batches = jax.tree.map(lambda a: a.reshape(micro_steps, -1, *a.shape[1:]), batch)

    def add_part(total: Tree, part: Any) -> tuple[Tree, Any]:
        gradient, batch_stats, loss, accuracy = part_gradient(*part)
        return jax.tree.map(jnp.add, total, (gradient, batch_stats)), (loss, accuracy)

    zero = jax.tree.map(jnp.zeros_like, (variables["params"], variables["batch_stats"]))
    total, figures = jax.lax.scan(add_part, zero, (samples, micro_batches))
    means = (*jax.tree.map(lambda a: a / micro_steps, total), *(f.mean() for f in figures))
    return jax.lax.pmean(means, AXIS)


def _part_gradient(
    net: Network, settings: Settings, variables: Tree, teacher: Tree, phase: PhaseData,
    others: jax.Array, samples: tuple[Arch, jax.Array], batch: dict[str, jax.Array],
) -> tuple[Tree, Tree, jax.Array, jax.Array]:  # fmt: skip
    """A part's gradient, summed over its subnets, its running statistics, loss and accuracy.

    The gradients of all `others` than the largest, the first of a sandwich, have that weight.
    """
    images = normalize_images(batch["image"], *settings.normalization)
    labels = jax.nn.one_hot(batch["label"], net.space.num_classes, dtype=jnp.float32)
    mix_key = jax.random.fold_in(samples[1][0], 0)
    images, labels = mix(mix_key, images, labels, settings.mixup, settings.cutmix)
    images = images.astype(settings.dtype)
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
        loss = _loss(settings, phase, taught, logits, labels, targets)
        right = logits.argmax(-1).astype(jnp.int32) == batch["label"]
        accuracy = right.mean(dtype=jnp.float32)
        return loss, (new["batch_stats"], accuracy, logits)

    def add_subnet(row: jax.Array, carry: Any) -> Any:
        total, batch_stats, targets, figures = carry
        teaches, own = first_teaches & (row == 0), jax.tree.map(lambda rows: rows[row], samples)
        (loss, (batch_stats, accuracy, logits)), gradient = jax.value_and_grad(
            subnet_loss, has_aux=True
        )(variables["params"], batch_stats, targets, teaches, *own)
        weight = jnp.where(row == 0, 1, others)
        total = jax.tree.map(lambda a, b: a + weight * b, total, gradient)
        targets = jnp.where(teaches, logits.astype(jnp.float32), targets)
        return total, batch_stats, targets, figures + jnp.stack([loss, accuracy])

    zero = jax.tree.map(jnp.zeros_like, variables["params"])
    figures = jax.lax.pcast(jnp.zeros(2, jnp.float32), AXIS, to="varying")
    # A loop of traced length: phases of any number of subnets share the program.
    gradient, batch_stats, _, figures = jax.lax.fori_loop(
        0, phase.subnets, add_subnet, (zero, variables["batch_stats"], targets, figures)
    )
    loss, accuracy = figures / phase.subnets.astype(jnp.float32)
    return gradient, batch_stats, loss, accuracy


def _loss(
    settings: Settings, phase: PhaseData, taught: jax.Array, logits: jax.Array, labels: jax.Array,
    targets: jax.Array,
) -> jax.Array:  # fmt: skip
    """A subnet's loss: from the labels, and from the teacher's logits where it is taught."""
    unsmoothed = taught & (not settings.distillation.smooth_labels)
    smoothing = jnp.where(unsmoothed, 0.0, settings.label_smoothing)
    by_labels = losses.smoothed_cross_entropy(logits, labels, smoothing)
    by_teacher = losses.distillation(phase.loss, logits, targets, settings.distillation.temperature)
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
    """The moving average after a step; it forgets faster at the start of a phase."""
    if state.ema is None:
        return None
    done = (state.step - phase.first_step).astype(jnp.float32)
    return optax.incremental_update(
        params, state.ema, 1 - jnp.minimum(decay, (1 + done) / (10 + done))
    )
