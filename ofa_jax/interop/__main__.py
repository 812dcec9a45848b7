"""Turns a PyTorch file of the reference into an Orbax supernet, or into a subnet.

python -m ofa_jax.interop CHECKPOINT --space=ofa_mbv3_d234_e346_k357_w1.0 --out=supernet
python -m ofa_jax.interop CHECKPOINT --space=… --net_config=net.config --out=subnet
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ofa_jax import checkpoint
from ofa_jax.interop.net_config import arch_from_net_config
from ofa_jax.interop.once_for_all import from_once_for_all
from ofa_jax.spaces import get_space, list_spaces, space_to_dict


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 where it wrote the network, 2 and one line where the input is bad."""
    flags = _parser().parse_args(arguments)
    try:
        print(convert(flags.checkpoint, flags.space, flags.out, flags.net_config))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ofa_jax.interop",
        description="Turns PyTorch weights of once-for-all into an Orbax directory.",
    )
    parser.add_argument("checkpoint", type=Path, help="the PyTorch file")
    parser.add_argument("--space", required=True, help=", ".join(list_spaces()))
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--net_config", type=Path, help="of a specialised net: its net.config file")
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
        raise ValueError(f"--out={out} exists: give a new directory")
    get_space(space_name)  # before anything large is read
    state_dict = read_state_dict(source)
    space = get_space(space_name, num_classes=_classes(state_dict, source))
    description: dict[str, Any] = {"space": space_to_dict(space), "source": source.name}
    arch, kind = None, "supernet"
    if net_config is not None:
        arch, kind = arch_from_net_config(_read_json(net_config), space), "subnet"
        description["arch"] = space.arch_to_dict(arch)
    variables = from_once_for_all(state_dict, space, arch)
    checkpoint.save_network(out / "orbax" if arch else out, variables, description)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return (
        f"{kind} of {space.name}, {space.num_classes} classes, {count / 1e6:.2f}M parameters,"
        f" written to {out}; ofa_jax.load_{kind}({str(out)!r}) reads it"
    )


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a PyTorch file by name, refusing whatever would run code when it is read.

    Raises:
      ValueError: the file is missing, not a plain tensor file, or holds no state dict.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "reading a PyTorch file needs PyTorch: pip install 'ofa_jax[torch]'"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, EOF and torch's own errors: all mean the same here
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} is not a plain tensor file, refused: {reason[0][:150] if reason else error!r}"
        ) from error
    if isinstance(found, Mapping) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(hasattr(v, "detach") for v in found.values()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name")
    # Weights saved from a DataParallel module have its name in front.
    return {name.removeprefix("module."): value for name, value in found.items()}


def _classes(state_dict: Mapping[str, Any], source: Path) -> int:
    biases = [v for k, v in state_dict.items() if k.startswith("classifier") and k.endswith("bias")]
    if len(biases) != 1:
        raise ValueError(f"{source} has no classifier bias: not a network of once-for-all")
    return int(biases[0].shape[0])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"--net_config={path} cannot be read as JSON: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
