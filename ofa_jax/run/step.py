"""The training step of a config."""

import dataclasses
import functools
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from ofa_jax import mesh
from ofa_jax.network import Network
from ofa_jax.run.config import Config
from ofa_jax.train import step as step_lib
from ofa_jax.train.optimizer import OPTIMIZERS
from ofa_jax.train.step import Distillation, Settings, TrainState

Tree = Any


def optimizer(config: Config) -> optax.GradientTransformation:
    """The optimiser without the learning rate."""
    train = config.train
    return OPTIMIZERS[train.optimizer](train.momentum, train.weight_decay, train.clip)


def fresh_state(config: Config, variables: Tree, step: int) -> TrainState:
    """The state at the start of a phase."""
    return step_lib.fresh_state(variables, optimizer(config), step, bool(config.train.ema))


def init_state(config: Config, devices: Mesh, variables: Tree, step: int) -> TrainState:
    """`fresh_state` on the devices."""
    state = fresh_state(config, variables, step)
    return mesh.place(state, state_shardings(config, devices, state))


def state_shardings(config: Config, devices: Mesh, state: TrainState) -> TrainState:
    """Where each array of a state lies: on every device, or the optimiser's spread over them."""
    everywhere = jax.tree.map(lambda _: mesh.replicated(devices), state)
    if not config.parallel.shard_optimizer:
        return everywhere
    spread = jax.tree.map(functools.partial(mesh.spread, devices), state.opt_state)
    return dataclasses.replace(everywhere, opt_state=spread)


def settings(config: Config, devices: Mesh, most: int) -> Settings:
    """What is static in the step, of at most so many subnets a part."""
    data, parallel = config.data, config.parallel
    return Settings(
        optimizer=optimizer(config),
        devices=devices,
        most=most,
        seed=config.seed,
        label_smoothing=config.train.label_smoothing,
        ema=config.train.ema,
        distillation=Distillation(config.distill.temperature, config.distill.smooth_labels),
        normalization=data.normalization,
        dtype=mesh.best_dtype(config.train.dtype, devices.devices.flat[0]),
        mixup=data.augment.mixup,
        cutmix=data.augment.cutmix,
        micro_steps=parallel.micro_steps,
        subnets=parallel.subnets,
        statistics=parallel.statistics,
    )


def jit_step(
    net: Network, config: Config, most: int, devices: Mesh, state: TrainState
) -> jax.stages.Wrapped:
    """The step of at most so many subnets a part, for a state of these shapes."""
    sharding = state_shardings(config, devices, state).opt_state
    return step_lib.jit_step(net, settings(config, devices, most), sharding)
