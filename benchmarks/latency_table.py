"""A latency table of this machine, checked with 30 whole subnets.

    python -m benchmarks.latency_table --space=ofa_mbv3_d234_e346_k357_w1.0 \\
        --resolutions 160 224 --out=latency.json

`taskset -c 0` before it measures with one thread. `--config.search.latency_table=latency.json`
searches with it.
"""

import argparse
import os

from ofa_jax import build_latency_table, get_space
from ofa_jax.run.metrics import track


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", required=True, help="an id of ofa_jax.list_spaces()")
    parser.add_argument("--resolutions", type=int, nargs="+", required=True, help="pixels")
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--dtype", default="float32", help="or bfloat16")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out", required=True, help="file to write, JSON")
    args = parser.parse_args()
    if os.path.lexists(args.out):
        parser.exit(2, f"error: --out={args.out} exists: give a new file\n")
    try:
        space = get_space(args.space, num_classes=args.num_classes)
        build_latency_table(space, args.resolutions, args.out, batch_size=args.batch_size,
                            dtype=args.dtype, repeats=args.repeats, track=track)  # fmt: skip
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
