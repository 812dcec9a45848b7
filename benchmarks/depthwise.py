"""Depthwise convolutions of a once-for-all net: forward, and forward with both gradients.

    pip install -e ".[bench]"
    python -m benchmarks.depthwise --against-once-for-all

For each shape of the space and each kernel size: `depthwise_conv` as this backend takes it, XLA's
grouped convolution, and PyTorch's kernels, which are the reference's, in both layouts.
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import harness
from ofa_jax import conv
from ofa_jax.families import get_space
from ofa_jax.space import SearchSpace
from ofa_jax.topology import Conv

Timed = tuple[float, float]
OURS, GROUPED = "ofa_jax", "XLA grouped"


def shapes(space: SearchSpace, batch: int, resolution: int) -> list[tuple[int, int, int, int]]:
    """The distinct (batch, size, channels, stride) of the elastic ones at their largest."""
    found = [
        (batch, layer.source.side(resolution), layer.source.channels.most, layer.operation.stride)
        for layer in space.layers
        if isinstance(layer.operation, Conv)
        and layer.operation.depthwise
        and layer.operation.kernel.genes
    ]
    return list(dict.fromkeys(found))


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    return statistics.median(harness.timed(call, repeats)) * 1e3


def ours(
    function: Callable[..., jax.Array], shape: tuple[int, ...], kernel: int, args: Any
) -> Timed:
    batch, size, channels, stride = shape
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (batch, size, size, channels), args.dtype)
    weight = jax.random.normal(keys[1], (kernel, kernel, 1, channels), args.dtype)

    @jax.jit
    def forward(x: jax.Array, weight: jax.Array) -> jax.Array:
        return function(x, weight, stride)

    @jax.jit
    def both(x: jax.Array, weight: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda x, w: function(x, w, stride), x, weight)
        return y, vjp(y)

    calls = (functools.partial(f, x, weight) for f in (forward, both))
    first, second = (milliseconds(call, args.repeats) for call in calls)
    return first, second


def pytorchs(layout: str, shape: tuple[int, ...], kernel: int, args: Any) -> Timed:
    import torch

    from benchmarks.once_for_all import DEVICE, LAYOUTS, wait

    batch, size, channels, stride = shape
    dtype = getattr(torch, args.dtype)
    x = torch.randn(batch, channels, size, size).to(DEVICE, dtype, memory_format=LAYOUTS[layout])
    weight = torch.randn(channels, 1, kernel, kernel).to(DEVICE, dtype)
    inputs = (x.requires_grad_(), weight.requires_grad_())

    def convolved() -> torch.Tensor:
        return torch.nn.functional.conv2d(
            x, weight, stride=stride, padding=kernel // 2, groups=channels
        )

    def forward() -> None:
        with torch.no_grad():
            convolved()
        wait()

    def both() -> None:
        y = convolved()
        torch.autograd.grad(y, inputs, y.detach())
        wait()

    return milliseconds(forward, args.repeats), milliseconds(both, args.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="ofa_mbv3_d234_e346_k357_w1.0")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5, 7])
    parser.add_argument("--dtype", default="float32", help="or bfloat16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--grouped", action="store_true", help="also XLA's, slow on CPU")
    parser.add_argument("--against-once-for-all", action="store_true")
    parser.add_argument("--json", default="", help="file to write the figures to")
    args = parser.parse_args()
    if args.against_once_for_all:
        harness.needs("torch", "ofa")
    space = get_space(args.space)
    if not shapes(space, args.batch_size, args.resolution):
        parser.error(f"--space={args.space}: it has no elastic depthwise convolution")
    names = [OURS] + [GROUPED] * args.grouped
    if args.against_once_for_all:
        from benchmarks.once_for_all import LAYOUTS

        names += [f"PyTorch, {layout}" for layout in LAYOUTS]
    print("milliseconds, forward / forward and both gradients\n")
    print(f"{'input, kernel, stride':32}" + "".join(f"{name:>22}" for name in names))
    rows: dict[str, dict[str, Timed]] = {}
    for shape in shapes(space, args.batch_size, args.resolution):
        batch, size, channels, stride = shape
        for kernel in args.kernels:
            timed: dict[str, Timed] = {}
            for name in names:
                if name.startswith("PyTorch"):
                    timed[name] = pytorchs(name.partition(", ")[2], shape, kernel, args)
                else:
                    function = conv.depthwise_conv if name == OURS else conv.grouped_conv
                    timed[name] = ours(function, shape, kernel, args)
            row = f"{batch}x{size}x{size}x{channels}, {kernel}, {stride}"
            rows[row] = timed
            figures = (f"{f'{a:.2f} / {b:.2f}':>22}" for a, b in timed.values())
            print(f"{row:32}" + "".join(figures), flush=True)
    totals = {name: tuple(sum(row[name][i] for row in rows.values()) for i in (0, 1))
              for name in names}  # fmt: skip
    print(f"{'sum':32}" + "".join(f"{f'{a:.1f} / {b:.1f}':>22}" for a, b in totals.values()))
    ratios = (f"{f'{a / totals[OURS][0]:.2f} / {b / totals[OURS][1]:.2f}':>22}"
              for a, b in totals.values())  # fmt: skip
    print(f"{'to ofa_jax':32}" + "".join(ratios))
    harness.finish(args.json, {"arguments": vars(args), "milliseconds": rows, "sums": totals})


if __name__ == "__main__":
    main()
