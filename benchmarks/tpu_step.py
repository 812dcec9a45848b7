"""What one masked subnet of the MobileNetV3 w1.0 space costs on a TPU, by the compiler alone.

    pip install -e ".[tpu]"  # best in an environment of its own
    python -m benchmarks.tpu_step --target=v5e:2x2

Forward and backward pass on one chip of a slice that need not be attached, in each type:
operations, bytes between the chip and its memory, bytes held there, and the least time. A program
takes minutes to compile on two cores.
"""

import argparse
import time

import jax

from benchmarks import harness
from configs import imagenet_mbv3
from ofa_jax.network import build_supernet
from ofa_jax.run.config import from_dict
from ofa_jax.run.programs import Setting, subnet_gradient, target_mesh
from ofa_jax.run.roofline import chip_of, cost_of, least, memory_needed

HEAD = "type | GFLOP | GB moved | GB held | least ms | bound by | seconds to compile"


def setting(args: argparse.Namespace, dtype: str) -> Setting:
    """The ImageNet config on the described slice, with `args.images` a chip."""
    config = imagenet_mbv3.get_config()
    devices = target_mesh(args.target)
    config.train.dtype = dtype
    config.data.batch_size = args.images * devices.size
    config.data.resolutions = (args.resolution,)
    checked = from_dict(config.to_dict())
    return Setting(checked, build_supernet(checked.search_space(1000), "masks"), devices)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="v5e:2x2")
    parser.add_argument("--images", type=int, default=128, help="a chip")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--types", default="float32,bfloat16")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    harness.needs("libtpu", extra="tpu")
    jax.config.update("jax_platforms", "cpu")
    rows = []
    print(HEAD, flush=True)
    for dtype in args.types.split(","):
        where = setting(args, dtype)
        began = time.monotonic()
        compiled = subnet_gradient(where).compile()
        seconds = time.monotonic() - began
        cost, held = cost_of(compiled), memory_needed(compiled)
        chip = chip_of(where.devices.devices.flat[0])
        assert chip is not None
        lowest, bound = least(cost, chip, 1)
        rows.append({"type": dtype, "flops": cost.flops, "moved": cost.moved, "held": held,
                     "least": lowest, "bound": bound, "seconds": seconds})  # fmt: skip
        print(f"{dtype} | {cost.flops / 1e9:.1f} | {cost.moved / 1e9:.2f} | {held / 1e9:.2f} |"
              f" {lowest * 1e3:.1f} | {bound} | {seconds:.0f}", flush=True)  # fmt: skip
    harness.finish(args.json, {"arguments": vars(args), "rows": rows})


if __name__ == "__main__":
    main()
