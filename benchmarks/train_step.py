"""The expand-phase training step: a teacher's forward pass, four subnets, one update.

    pip install -e ".[bench]"
    python -m benchmarks.train_step --against-once-for-all

Then the forward and backward pass of one subnet: the largest, random ones, the smallest, all by one
program; and the memory of the step beside that of a step of the largest net alone. The reference
does the same work in the same process, in turns.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness
from ofa_jax import mesh
from ofa_jax.families import get_space
from ofa_jax.network import Network, best_compute, build_subnet, build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.programs import Setting, compile_step, step_arguments
from ofa_jax.run.roofline import chip_of, cost_of
from ofa_jax.run.step import init_state, optimizer
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.train.losses import smoothed_cross_entropy, soft_cross_entropy
from ofa_jax.train.phases import Phase, phase_data

Tree = Any
Call = Callable[[], Any]
ARCHS = 12  # random subnets
REFERENCE = "once-for-all, "


def setting_for(args: argparse.Namespace, compute: str) -> Setting:
    space = get_space(args.space)
    largest = {f: getattr(space, f)[-1:] for f in ("kernels", "expands", "depths", "widths")}
    config = from_dict(
        {
            "space": {"name": args.space, "num_classes": args.classes},
            "data": {"batch_size": args.batch_size, "resolutions": (args.resolution,)},
            "train": {"dtype": args.dtype, "compute": compute},
            "curriculum": ("full", "expand"),
            "phases": {"full": {"distill": 0.0, **largest}, "expand": {"subnets": args.subnets}},
        }
    )
    devices = mesh.data_mesh(1)
    space = config.search_space(args.classes)
    way = best_compute(compute, mesh.platform(devices), space)
    return Setting(config, build_supernet(space, way), devices)


def variables_of(net: Network) -> Tree:
    images = jnp.zeros((1, 32, 32, 3))
    return jax.jit(net.init)(jax.random.key(0), images, net.space.largest())


def made_up_batch(args: argparse.Namespace) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (args.batch_size, args.resolution, args.resolution, 3)
    return {
        "image": rng.integers(0, 256, shape).astype(np.uint8),
        "label": rng.integers(0, args.classes, args.batch_size).astype(np.int32),
    }


# -- the whole step --------------------------------------------------------------------------------


def whole_step(args: argparse.Namespace, setting: Setting) -> tuple[Call, Any]:
    """The run's own step, each call continuing from the last one's state, and its program."""
    net, devices = setting.net, setting.devices
    program = compile_step(setting, args.subnets, step_arguments(setting))
    variables = variables_of(net)
    state = init_state(setting.config, devices, variables, 0)
    trained = Phase(lr=1e-3, subnets=args.subnets)
    phase = phase_data(trained, net.space, 0, args.batch_size, args.batch_size)
    teacher, phase = mesh.replicate(devices, variables), mesh.replicate(devices, phase)
    batch = mesh.shard_batch(devices, made_up_batch(args))

    def step() -> Any:
        nonlocal state
        state, metrics = program(state, teacher, phase, batch)
        return metrics

    return step, program


def static_step(args: argparse.Namespace, setting: Setting) -> Any:
    """The program of one step of the largest net alone, with a teacher of the same size."""
    net = build_subnet(setting.net.space, setting.net.space.largest())
    rule, mutable = optimizer(setting.config), ["batch_stats"]
    images = jnp.zeros((args.batch_size, args.resolution, args.resolution, 3), args.dtype)
    labels = jnp.zeros(args.batch_size, jnp.int32)
    variables = jax.jit(net.init)(jax.random.key(0), images[:1])

    def step(variables: Tree, moments: Tree, teacher: Tree, images: Any, labels: Any) -> Any:
        soft = net.apply(teacher, images, train=True, mutable=mutable)[0]

        def loss(params: Tree) -> Any:
            own = {"params": params, "batch_stats": variables["batch_stats"]}
            logits, new = net.apply(own, images, train=True, mutable=mutable)
            hard = smoothed_cross_entropy(logits, labels, 0.1)
            return hard + soft_cross_entropy(logits, soft), new["batch_stats"]

        gradient, stats = jax.grad(loss, has_aux=True)(variables["params"])
        updates, moments = rule.update(gradient, moments, variables["params"])
        params = optax.apply_updates(variables["params"], jax.tree.map(lambda u: -u, updates))
        return {"params": params, "batch_stats": stats}, moments

    moments = rule.init(variables["params"])
    jitted = jax.jit(step, donate_argnums=(0, 1))
    return jitted.lower(variables, moments, variables, images, labels).compile()


def peak_bytes(program: Any) -> int:
    """The memory of a program: arguments, results that do not reuse theirs, and temporaries."""
    memory = program.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


# -- one subnet ------------------------------------------------------------------------------------


def subnet_passes(args: argparse.Namespace, setting: Setting) -> dict[str, list[Call]]:
    """Forward and backward passes of the largest, of random and of the smallest subnet."""
    net, space = setting.net, setting.net.space
    variables, batch = variables_of(net), made_up_batch(args)
    images = jnp.asarray(batch["image"] / 255.0, args.dtype)
    labels = jnp.asarray(batch["label"])

    @jax.jit
    def gradient(variables: Tree, arch: Arch) -> Tree:
        def loss(params: Tree) -> Any:
            own = {"params": params, "batch_stats": variables["batch_stats"]}
            logits, new = net.apply(own, images, arch, train=True, mutable=["batch_stats"])
            return smoothed_cross_entropy(logits, labels, 0.1), new["batch_stats"]

        return jax.grad(loss, has_aux=True)(variables["params"])

    return {
        "largest": [functools.partial(gradient, variables, space.largest())],
        "random": [functools.partial(gradient, variables, arch) for arch in random_archs(space)],
        "smallest": [functools.partial(gradient, variables, space.smallest())],
    }


def random_archs(space: SearchSpace) -> list[Arch]:
    """The same for us and for the reference."""
    return [space.sample(jax.random.key(seed)) for seed in range(ARCHS)]


def reference_passes(args: argparse.Namespace, net: Any, space: Any) -> dict[str, list[Call]]:
    """The same of the reference."""
    import torch

    from benchmarks.once_for_all import DEVICE

    images = net.images(args.batch_size, args.resolution)
    labels = torch.zeros(args.batch_size, dtype=torch.long, device=DEVICE)

    def of(arch: Arch) -> Call:
        values = space.arch_to_dict(arch)
        # The reference wants a number for skipped blocks too.
        active = {key: [v or max(filter(None, vs)) for v in vs] for key, vs in values.items()}

        def call() -> None:
            net.net.set_active_subnet(**active)
            net.subnet(images, labels)

        return call

    return {
        "step": [lambda: net.step(images, labels, args.subnets)],
        "largest": [of(space.largest())],
        "random": [of(arch) for arch in random_archs(space)],
        "smallest": [of(space.smallest())],
    }


# -- the table -------------------------------------------------------------------------------------


def contenders(
    args: argparse.Namespace,
) -> tuple[dict[str, dict[str, list[Call]]], dict[str, Any]]:
    """By name: the whole step and the passes of one subnet; and the programs of the steps."""
    found: dict[str, dict[str, list[Call]]] = {}
    programs: dict[str, Any] = {}
    for compute in args.compute:
        setting = setting_for(args, compute)
        name = f"ofa_jax, {setting.net.compute}"
        step, programs[name] = whole_step(args, setting)
        found[name] = {"step": [step], **subnet_passes(args, setting)}
    if args.against_once_for_all:
        from benchmarks.once_for_all import LAYOUTS, Reference

        space = setting_for(args, "masks").config.search_space(args.classes)
        for layout in LAYOUTS:
            found[REFERENCE + layout] = reference_passes(args, Reference(space, layout), space)
    return found, programs


def measure(args: argparse.Namespace, found: dict[str, dict[str, list[Call]]]) -> dict[str, Any]:
    """Milliseconds by contender: of the step, and of one pass of a subnet.

    The mean of steps, which sample other subnets each time; the median of a subnet's passes.
    """
    rows: dict[str, Any] = {name: {} for name in found}
    for what in ("step", "largest", "random", "smallest"):
        print(f"{what}:", flush=True)
        calls = {(name, i): call for name, of in found.items() for i, call in enumerate(of[what])}
        steps, warm = (args.steps, args.warm) if what == "step" else (2, 2)
        times = harness.in_turns(args.rounds, steps, calls, warm)
        average = np.mean if what == "step" else np.median
        for name in found:
            each = [average(taken) for (of, _), taken in times.items() if of == name]
            rows[name][what] = float(np.mean(each)) * 1e3
    return rows


def show(args: argparse.Namespace, rows: dict[str, Any]) -> None:
    print(f"\n{'milliseconds':28}{'step':>8}{'images/s':>10}{'largest':>9}{'random':>8}", end="")
    print(f"{'smallest':>10}{'random/largest':>16}")
    for name, row in rows.items():
        row["images_per_second"] = args.batch_size / row["step"] * 1e3
        row["random_to_largest"] = row["random"] / row["largest"]
        print(
            f"{name:28}{row['step']:8.1f}{row['images_per_second']:10.1f}{row['largest']:9.1f}"
            f"{row['random']:8.1f}{row['smallest']:10.1f}{row['random_to_largest']:16.2f}"
        )
    ours = next(iter(rows))
    for name, row in rows.items():
        if name.startswith(REFERENCE):
            row["ratio"] = row["step"] / rows[ours]["step"]
            print(f"{ours}: {row['ratio']:.2f} times as fast a step as {name}")


def show_memory(args: argparse.Namespace, programs: dict[str, Any]) -> dict[str, float]:
    """Peak megabytes by program, and how many times the static step's."""
    print("\nmemory, a step of the largest net by itself against that of the supernet:")
    alone = peak_bytes(static_step(args, setting_for(args, "masks")))
    megabytes = {"the largest net by itself": alone / 1e6}
    for name, program in programs.items():
        megabytes[name] = peak_bytes(program) / 1e6
    for name, value in megabytes.items():
        print(f"{name:28}{value:8.0f} MB{value * 1e6 / alone:8.2f}")
    return megabytes


def show_bandwidth(programs: dict[str, Any], rows: dict[str, Any]) -> None:
    """On a chip whose figures are known: the share of its memory bandwidth that a step takes."""
    chip = chip_of(jax.devices()[0])
    if chip is None:
        return
    for name, program in programs.items():
        moved = cost_of(program).moved
        least = moved / chip.bandwidth * 1e3
        print(
            f"{name}: {moved / 1e9:.1f} GB at {chip.bandwidth / 1e9:.0f} GB/s: at least"
            f" {least:.1f} ms, {least / rows[name]['step']:.0%} of the step (loops counted once)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_d234_e346_k357_w1.0")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--subnets", type=int, default=4, help="a step")
    parser.add_argument("--dtype", default="float32", help="or bfloat16")
    parser.add_argument(
        "--compute", nargs="+", default=["auto"], help="auto, masks, branches, widths"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="a round, of each contender")
    parser.add_argument("--warm", type=int, default=12, help="steps before, of each contender")
    parser.add_argument("--against-once-for-all", action="store_true")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    if args.against_once_for_all:
        harness.needs("torch", "ofa")
    found, programs = contenders(args)
    rows = measure(args, found)
    show(args, rows)
    memory = show_memory(args, programs)
    show_bandwidth(programs, rows)
    harness.finish(args.json, {"arguments": vars(args), "rows": rows, "megabytes": memory})


if __name__ == "__main__":
    main()
