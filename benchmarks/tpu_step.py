"""What one subnet of the MobileNetV3 w1.0 space costs on a TPU, by the compiler alone.

    pip install -e ".[tpu]"  # best in an environment of its own
    python -m benchmarks.tpu_step --target=v5e:2x2

Forward and backward pass on one chip of a slice that need not be attached, by each way of
`train.compute` and in each type: operations, bytes between the chip and its memory, bytes held
there, and the least time. By masks all subnets cost the same; else the largest, the mean of 1,000
random ones by its MACs between the ends, and the smallest. A program takes minutes to compile on
two cores, one of widths a quarter of an hour.
"""

import argparse
import time

import jax

from benchmarks import harness
from configs import imagenet_mbv3
from ofa_jax.network import build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.programs import (
    Setting,
    macs_of_ends_and_mean,
    subnet_gradient,
    target_mesh,
)
from ofa_jax.run.roofline import Cost, chip_of, cost_of, least, memory_needed
from ofa_jax.run.traffic import memory_bytes

HEAD = "way | type | subnet | GFLOP | GB moved | least ms | bound by | GB held | seconds to compile"


def setting(args: argparse.Namespace, way: str, dtype: str) -> Setting:
    """The ImageNet config on the described slice, with `args.images` a chip."""
    config = imagenet_mbv3.get_config()
    devices = target_mesh(args.target)
    config.train.dtype = dtype
    config.data.batch_size = args.images * devices.size
    config.data.resolutions = (args.resolution,)
    checked = from_dict(config.to_dict())
    return Setting(checked, build_supernet(checked.search_space(1000), way), devices)


def costs_by_subnet(where: Setting, compiled: jax.stages.Compiled) -> dict[str, Cost]:
    """The costs of the largest, a mean and the smallest subnet, by one program of all."""
    largest = cost_of(compiled)
    if where.net.compute == "masks":
        return {"any": largest}
    low, mean, high = macs_of_ends_and_mean(where)
    least_moved = memory_bytes(compiled.as_text() or "", of=min)
    share = (mean - low) / (high - low)
    moved = least_moved + share * (largest.moved - least_moved)
    return {
        "largest": largest,
        "mean": Cost(largest.flops * mean / high, moved),
        "smallest": Cost(largest.flops * low / high, least_moved),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="v5e:2x2")
    parser.add_argument("--images", type=int, default=128, help="a chip")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--ways", default="masks:float32,masks:bfloat16,widths:bfloat16")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    harness.needs("libtpu", extra="tpu")
    jax.config.update("jax_platforms", "cpu")
    rows = []
    print(HEAD, flush=True)
    for each in args.ways.split(","):
        way, dtype = each.split(":")
        where = setting(args, way, dtype)
        lowered = subnet_gradient(where)
        began = time.monotonic()
        compiled = lowered.compile()
        seconds, held = time.monotonic() - began, memory_needed(compiled)
        chip = chip_of(where.devices.devices.flat[0])
        assert chip is not None
        for subnet, cost in costs_by_subnet(where, compiled).items():
            lowest, bound = least(cost, chip, 1)
            rows.append({"way": way, "type": dtype, "subnet": subnet, "flops": cost.flops,
                         "moved": cost.moved, "held": held, "least": lowest, "bound": bound,
                         "seconds": seconds})  # fmt: skip
            print(
                f"{way} | {dtype} | {subnet} | {cost.flops / 1e9:.1f} | {cost.moved / 1e9:.2f} |"
                f" {lowest * 1e3:.1f} | {bound} | {held / 1e9:.2f} | {seconds:.0f}",
                flush=True,
            )
    harness.finish(args.json, {"arguments": vars(args), "rows": rows})


if __name__ == "__main__":
    main()
