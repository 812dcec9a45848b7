"""Turns a PyTorch file of the reference into an Orbax supernet, or into a subnet.

python -m ofa_jax.interop CHECKPOINT --space=ofa_mbv3_d234_e346_k357_w1.0 --out=supernet
python -m ofa_jax.interop CHECKPOINT --space=… --net_config=net.config --out=subnet
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax

from ofa_jax import checkpoint
from ofa_jax.errors import InputError
from ofa_jax.families import get_space, list_spaces, space_to_dict
from ofa_jax.files import naming
from ofa_jax.interop.net_config import read_net_config
from ofa_jax.interop.once_for_all import NORMALIZATION, from_once_for_all
from ofa_jax.interop.torch_file import load_torch_supernet, number_of_classes, read_state_dict
from ofa_jax.names import local_path
from ofa_jax.space import Arch, SearchSpace


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 where it wrote the network, 2 and one line where the input is bad."""
    flags = _parser().parse_args(arguments)
    try:
        source, out = local_path("CHECKPOINT", flags.checkpoint), local_path("--out", flags.out)
        net_config = flags.net_config and local_path("--net_config", flags.net_config)
        print(convert(source, flags.space, out, net_config))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ofa_jax.interop",
        description="Turns PyTorch weights of once-for-all into an Orbax directory.",
    )
    parser.add_argument("checkpoint", help="the PyTorch file")
    parser.add_argument("--space", required=True, help=", ".join(list_spaces()))
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument("--net_config", help="of a specialised net: its net.config file")
    return parser


def convert(source: Path, space_name: str, out: Path, net_config: Path | None = None) -> str:
    """Reads a PyTorch file and writes a directory for `load_supernet`, or for `load_subnet`.

    Args:
      source: a file of `torch.save`: a state dict, or an object with one under "state_dict".
      space_name: the id of the net's space; the number of classes is the file's.
      out: the directory, which must not exist.
      net_config: the JSON file that tells which subnet the weights are of.

    Returns:
      One line that says what was written.

    Raises:
      ValueError: a file that is missing, not plain tensors, or not of the space; `out` exists;
        PyTorch is not installed.
    """
    if out.exists():
        raise InputError(f"--out={out} exists: give a new directory")
    space, arch, variables = read_weights(source, get_space(space_name), net_config)
    description: dict[str, Any] = {"space": space_to_dict(space), "source": source.name}
    description["normalization"] = NORMALIZATION
    kind = "supernet"
    if arch is not None:
        description["arch"], kind = space.arch_to_dict(arch), "subnet"
    (out if arch else out.parent).mkdir(parents=True, exist_ok=True)
    checkpoint.save_network(out / "orbax" if arch else out, variables, description)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return (
        f"{kind} of {space.name}, {space.num_classes} classes, {count / 1e6:.2f}M parameters,"
        f" written to {out}; ofa_jax.load_{kind}({str(out)!r}) reads it"
    )


def read_weights(
    source: Path, space: SearchSpace, net_config: Path | None = None
) -> tuple[SearchSpace, Arch | None, Any]:
    """The space of a file, with its number of classes; its arch; its variables.

    Raises:
      ValueError: as `convert`, but for `out`.
    """
    if net_config is None:
        space, variables = load_torch_supernet(source, space)
        return space, None, variables
    state_dict = read_state_dict(source)
    with naming(source):
        space = dataclasses.replace(space, num_classes=number_of_classes(state_dict, source))
    arch = read_net_config(net_config, space)
    with naming(source):
        return space, arch, from_once_for_all(state_dict, space, arch)


if __name__ == "__main__":
    sys.exit(main())
