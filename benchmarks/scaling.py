"""Data-parallel scaling on paper: what chips exchange beside what they compute, by slice size.

    pip install -e ".[tpu]" && python benchmarks/scaling.py

For each TPU slice the training step is compiled for all its chips (none is needed), and the bytes
its all-reduces sum are read from the compiled program, beside 4 bytes for each parameter and
running statistic. A ring passes 2 n (d - 1) / d of n bytes on from each of d chips. The time to
compute is that of `main.py --mode=profile`: operations and bytes that the compiler counts over the
chip's peaks. Nothing is exchanged while a chip computes, so the efficiency is a low estimate.
"""

import argparse
import importlib
import json
import re
from typing import Any

import jax
import numpy as np

from ofa_jax.network import build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.profile import count
from ofa_jax.run.programs import (
    SUBNET,
    TEACHER,
    Setting,
    compile_step,
    part_costs,
    step_arguments,
    target_mesh,
    update_cost,
)
from ofa_jax.run.roofline import chip_of, seconds

SUBNETS = 4  # a part, in the expand phases
WIDTHS = {"f32": 4, "s32": 4, "bf16": 2, "pred": 1}


def setting_for(config_name: str, target: str, images: int, resolution: int, dtype: str) -> Setting:
    """A config of that per-device batch size, on a slice."""
    values = importlib.import_module(f"configs.{config_name}").get_config().to_dict()
    devices = target_mesh(target)
    values["data"].update(batch_size=images * devices.size, resolutions=(resolution,))
    values["train"].update(dtype=dtype)
    config = from_dict(values)
    _, classes = config.data.size or count(config)
    net = build_supernet(config.search_space(classes))
    return Setting(config, net, devices)


def reduced_bytes(program: str) -> tuple[int, float]:
    """(how many, bytes) of the all-reduces in a compiled program's text."""
    results = re.findall(r"= (.*?) all-reduce(?:-start)?\(", program)
    arrays = [a for result in results for a in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    sizes = [np.prod([int(n) for n in shape.split(",") if n]) for _, shape in arrays]
    widths = [WIDTHS[kind] for kind, _ in arrays]
    return len(results), float(np.dot(sizes, widths))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="imagenet_mbv3", help="a file of configs/")
    parser.add_argument("--targets", nargs="+", default=["v5e:2x4", "v5e:8x8", "v5e:16x16"])
    parser.add_argument("--images", type=int, default=64, help="a chip and step")
    parser.add_argument("--resolution", type=int, default=176)
    parser.add_argument("--dtype", default="float32", help="or bfloat16")
    parser.add_argument("--json", help="file to write the rows to")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # the TPUs are not here
    rows: list[dict[str, Any]] = []
    costs = None
    for target in arguments.targets:
        setting = setting_for(
            arguments.config, target, arguments.images, arguments.resolution, arguments.dtype
        )
        device, chips = setting.devices.devices.flat[0], setting.devices.size
        chip = chip_of(device)
        assert chip is not None, f"no figures of {device.device_kind}"
        costs = costs or part_costs(setting)  # of one chip, so the same for every slice
        compiled = compile_step(setting, SUBNETS, step_arguments(setting))
        all_reduces, summed = reduced_bytes(compiled.as_text())
        step = costs[SUBNET["masks"]].times(SUBNETS) + costs[TEACHER] + update_cost(setting)
        step = step._replace(reduced=summed)
        times = seconds(step, chip, chips)
        busy = max(times["compute"], times["memory"])
        rows.append(
            {
                "target": target,
                "chips": chips,
                "all_reduces": all_reduces,
                "counted_mb": 4 * sum(a.size for a in jax.tree.leaves(setting.variables)) / 1e6,
                "summed_mb": summed / 1e6,
                "passed_on_mb": 2 * summed * (chips - 1) / chips / 1e6,
                "compute_ms": busy * 1e3,
                "exchange_ms": times["links"] * 1e3,
                "efficiency": busy / (busy + times["links"]),
            }
        )
    for row in rows:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
