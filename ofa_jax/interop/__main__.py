"""Turns a PyTorch file of the reference into a supernet's directory, or into a subnet's.

python -m ofa_jax.interop CHECKPOINT --space=ofa_mbv3_d234_e346_k357_w1.0 --out=supernet
python -m ofa_jax.interop CHECKPOINT --space=… --net_config=net.config --out=subnet
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from shlex import quote
from typing import Any

import jax

from ofa_jax.checkpoint import checksum
from ofa_jax.errors import InputError
from ofa_jax.families import get_space, list_spaces, space_to_dict
from ofa_jax.files import LINE, naming, read_text, short
from ofa_jax.interop.net_config import read_net_config
from ofa_jax.interop.once_for_all import CENTER_CROP, NORMALIZATION, from_once_for_all
from ofa_jax.interop.torch_file import (
    load_torch_supernet,
    number_of_classes,
    read_state_dict,
    space_of_file,
)
from ofa_jax.names import local_path
from ofa_jax.run.imported import Imported, data_config, usual_resolution, write_imported
from ofa_jax.space import PIXELS, Arch, SearchSpace
from ofa_jax.storage import is_link
from ofa_jax.supernet import Preprocessing, SupernetCard, save_supernet


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 where it wrote the network, 2 and one line where the input is bad."""
    flags = _parser().parse_args(arguments)
    try:
        print(convert(flags))
    except (InputError, OSError) as error:  # a directory that cannot be written
        print(f"error: {short(error, LINE)}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ofa_jax.interop",
        description="Turns PyTorch weights of once-for-all into a directory of ours.",
    )
    parser.add_argument("checkpoint", help="the PyTorch file")
    parser.add_argument("--space", default="", help=f"{', '.join(list_spaces())}; default: that"
                        " whose tensors a supernet's file has")  # fmt: skip
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument("--classes", default="", help="a file with the classes' names, one a line")
    special = parser.add_argument_group("a specialised network")
    special.add_argument("--net_config", default="", help="its net.config file")
    special.add_argument("--resolution", type=int, default=0, help="pixels; default: the published"
                         " network's of that arch, or the largest of the space")  # fmt: skip
    special.add_argument("--data", default="", help="images to calibrate and measure it on: a"
                         " folder, or a dataset of tfds")  # fmt: skip
    special.add_argument("--data_dir", default="", help="where tfds keeps its datasets")
    special.add_argument("--keep_statistics", action="store_true", help="measure, not calibrate")
    return parser


def convert(flags: argparse.Namespace) -> str:
    """Reads a PyTorch file and writes a directory for `load_supernet`, or for `load_subnet`.

    Returns:
      Lines that say what was written, and what to do next.

    Raises:
      ValueError: a file that is missing, not plain tensors, or not of the space; the directory
        exists; PyTorch is not installed.
    """
    source, out = local_path("CHECKPOINT", flags.checkpoint), local_path("--out", flags.out)
    if out.exists() or is_link(out):
        raise InputError(f"--out={out} exists: give a new directory")
    if not flags.net_config:
        for flag in ("resolution", "data", "data_dir", "keep_statistics"):
            if getattr(flags, flag):
                raise InputError(f"--{flag} is for a specialised network: give its --net_config")
        return _convert_supernet(source, out, flags)
    if not flags.space:
        raise InputError(f"--net_config needs --space: expected one of {', '.join(list_spaces())}")
    return _convert_subnet(source, out, flags)


def _convert_supernet(source: Path, out: Path, flags: argparse.Namespace) -> str:
    space = get_space(flags.space) if flags.space else space_of_file(source)
    space, _, variables = read_weights(source, space)
    images = Preprocessing(NORMALIZATION["mean"], NORMALIZATION["std"], CENTER_CROP)
    classes = _read_classes(flags.classes, space)
    card = SupernetCard(space_to_dict(space), classes, images, space.resolutions, _origin(source))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_supernet(out, space, variables, card)
    return (
        f"{_summary('supernet', space, variables, out)}\n"
        f"next: python main.py {quote(f'--config=configs/specialise.py:{out}')}"
        " --workdir=runs/specialised"
        " --config.data.name=DATA"
    )


def _convert_subnet(source: Path, out: Path, flags: argparse.Namespace) -> str:
    net_config = local_path("--net_config", flags.net_config)
    space, arch, variables = read_weights(source, get_space(flags.space), net_config)
    assert arch is not None
    resolution = flags.resolution or usual_resolution(space, arch)
    if not 1 <= resolution <= PIXELS:
        raise InputError(f"--resolution={resolution}: expected 1 to {PIXELS} pixels")
    origin = {**_origin(source), "net_config": net_config.name}
    net = Imported(space, arch, variables, _read_classes(flags.classes, space), origin)
    data = data_config(flags.data, flags.data_dir, resolution)
    with naming(source):
        card = write_imported(out, net, resolution, data, calibrated=not flags.keep_statistics)
    measured = f", top-1 {card.accuracy['test']['top1']:.2%} on test" if card.accuracy else ""
    return (
        f"{_summary('subnet', space, variables, out)}, {resolution} px{measured}\n"
        f"next: python main.py --mode=benchmark {quote(f'--subnet={out}')}"
    )


def _summary(kind: str, space: SearchSpace, variables: Any, out: Path) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return (
        f"{kind} of {space.name}, {space.num_classes} classes, {count / 1e6:.2f}M parameters,"
        f" written to {out}; ofa_jax.load_{kind}({str(out)!r}) reads it"
    )


def _origin(source: Path) -> dict[str, str]:
    return {"file": source.name, "sha256": checksum(source)}


def _read_classes(path: str, space: SearchSpace) -> tuple[str, ...]:
    """The names of a file, one a line; () for no file."""
    if not path:
        return ()
    names = tuple(read_text(local_path("--classes", path)).splitlines())
    if len(names) != space.num_classes or len(set(names)) != len(names):
        raise InputError(
            f"--classes={path} has {len(names)} names, {len(set(names))} of them different: the"
            f" network has {space.num_classes} classes"
        )
    return names


def read_weights(
    source: Path, space: SearchSpace, net_config: Path | None = None
) -> tuple[SearchSpace, Arch | None, Any]:
    """The space of a file, with its number of classes; its arch; its variables.

    Raises:
      ValueError: a file that is missing, not plain tensors, or not of the space.
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
