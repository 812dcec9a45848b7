"""The least time that a program takes on a chip: what it computes, moves and exchanges."""

import os
from typing import NamedTuple

import jax

from ofa_jax.run.traffic import memory_bytes


class Chip(NamedTuple):
    """Peak figures of one chip, as its maker gives them.

    Attributes:
      flops: bfloat16 operations a second.
      memory: bytes.
      bandwidth: bytes a second between memory and chip.
      links: bytes a second to other chips, in one direction, over all links together.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


GIB = 2.0**30

# By a part of the device's kind. TPUs: docs.cloud.google.com/tpu/docs, the page of each version
# (links: half of the bidirectional figure). GPUs: NVIDIA's data sheets, dense, with NVLink.
CHIPS = {
    "TPU v4": Chip(275e12, 32 * GIB, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "TPU v5": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32 * GIB, 1640e9, 400e9),
    "A100": Chip(312e12, 80e9, 2039e9, 300e9),
    "H100": Chip(989e12, 80e9, 3350e9, 450e9),
    "H200": Chip(989e12, 141e9, 4800e9, 450e9),
}


class Cost(NamedTuple):
    """What a program does on one device: operations, bytes moved and bytes summed over devices."""

    flops: float
    moved: float
    reduced: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> "Cost":
        """The cost of so many such programs."""
        return Cost(*(value * factor for value in self))


def chip_of(device: jax.Device, devices: int = 1) -> Chip | None:
    """The figures of a device; None where they are not known. `devices` share the chip."""
    kinds = [kind for kind in CHIPS if kind in device.device_kind]
    return Chip(*(v / devices for v in CHIPS[max(kinds, key=len)])) if kinds else None


def memory_of(device: jax.Device) -> float:
    """Bytes of memory that a program may use on an attached device."""
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cost_of(compiled: jax.stages.Compiled) -> Cost:
    """What the compiler counts, the body of a loop once: for programs without loops."""
    counted, text = compiled.cost_analysis() or {}, compiled.as_text() or ""
    is_tpu = ":T(" in text  # arrays in tiles
    moved = memory_bytes(text) if is_tpu else counted.get("bytes accessed", 0.0)
    return Cost(counted.get("flops", 0.0), moved)


def memory_needed(compiled: jax.stages.Compiled) -> float:
    """Bytes that a program needs on a device: arguments, results and what is between."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0.0
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return kept + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def seconds(cost: Cost, chip: Chip, devices: int) -> dict[str, float]:
    """The least seconds for each thing that may bound a program.

    Summing n bytes over d devices in a ring passes 2 n (d - 1) / d of them on from each.
    """
    return {
        "compute": cost.flops / chip.flops,
        "memory": cost.moved / chip.bandwidth,
        "links": 2 * cost.reduced * (devices - 1) / devices / chip.links,
    }


def least(cost: Cost, chip: Chip, devices: int) -> tuple[float, str]:
    """The least seconds of a program, and what bounds it: compute and memory overlap, links follow.

    Conservative in that nothing is exchanged while it computes.
    """
    parts = seconds(cost, chip, devices)
    bound = max(("compute", "memory"), key=lambda name: parts[name])
    return parts[bound] + parts["links"], max(parts, key=lambda name: parts[name])
