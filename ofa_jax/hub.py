"""Writes a network as the Hugging Face Hub has them, and uploads it.

python -m ofa_jax.hub runs/digits --out=digits-supernet
python -m ofa_jax.hub runs/digits/subnets/mine --out=mine --push=USER/NAME

"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from ofa_jax import checkpoint
from ofa_jax.errors import InputError
from ofa_jax.files import LINE, naming, read_object, short
from ofa_jax.interop import push_to_hub, save_pretrained
from ofa_jax.names import local_path, place
from ofa_jax.plain import build
from ofa_jax.supernet import read_supernet_card


@dataclasses.dataclass(frozen=True)
class _Images:
    """How a subnet's images are made, among other fields of its card."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    center_crop: float


@dataclasses.dataclass(frozen=True)
class _Card:
    """What is taken of a subnet's card, among other fields."""

    resolution: int
    classes: tuple[str, ...]
    source: dict[str, Any]
    preprocessing: _Images


@dataclasses.dataclass(frozen=True)
class _Winner:
    """What `found.json` must say of each winner, among other fields."""

    name: str


IN_CARD = ("resolution", "macs", "preprocessing", "accuracy")  # of a subnet, for the model card


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; 0 where it wrote the network, 2 and one line where the input is bad."""
    parser = argparse.ArgumentParser(
        prog="python -m ofa_jax.hub", description="Writes a network for the Hub."
    )
    parser.add_argument("source", help="a run's workdir, or a supernet's or a subnet's directory")
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument("--license", default="other", help="as the Hub names it")
    parser.add_argument("--push", default="", help="the Hub's name to upload it to, USER/NAME")
    flags = parser.parse_args(arguments)
    try:
        out = local_path("--out", flags.out)
        print(convert(place("SOURCE", flags.source), out, flags.license))
        if flags.push:
            print(push_to_hub(out, flags.push))
    except (InputError, OSError) as error:  # a directory that cannot be written
        print(f"error: {short(error, LINE)}", file=sys.stderr)
        return 2
    return 0


def convert(source: Path, out: Path, license: str = "other") -> str:
    """Writes a run's supernet with the winners of its search, a supernet or a subnet.

    Returns:
      One line that says what was written.

    Raises:
      ValueError: no network at `source`, or as `save_pretrained`.
    """
    about = {"license": license}
    kind = "subnet" if (source / "orbax").is_dir() else "supernet"
    (_convert_subnet if kind == "subnet" else _convert_supernet)(source, out, about)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    return f"{kind} written to {out}, {size:.1f} MB"


def _convert_subnet(source: Path, out: Path, about: dict[str, Any]) -> None:
    """The subnet's card, where it has one, goes into the model card."""
    _, variables = checkpoint.load_subnet(source)
    space, arch, classes, normalization = checkpoint.describe(source / "orbax")
    resolutions: tuple[int, ...] = ()
    center_crop = 0.0
    path = source / "card.json"
    card = read_object(path, *IN_CARD, "classes", "source") if path.is_file() else {}
    if card:
        with naming(path):
            read: _Card = build(_Card, card, strict=False)
        about |= {key: card[key] for key in IN_CARD}
        about["dataset"], classes = read.source.get("dataset", ""), read.classes
        normalization = {"mean": read.preprocessing.mean, "std": read.preprocessing.std}
        resolutions, center_crop = (read.resolution,), read.preprocessing.center_crop
    save_pretrained(
        out, space, variables, arch, classes=classes, normalization=normalization,
        resolutions=resolutions, center_crop=center_crop, about=about,
    )  # fmt: skip


def _convert_supernet(source: Path, out: Path, about: dict[str, Any]) -> None:
    """The winners of the run's search become named archs."""
    directory = source / "supernet" if (source / "supernet").is_dir() else source
    space, _, variables = checkpoint.load_supernet(directory)
    card = read_supernet_card(directory)
    if card.trained:
        about["dataset"] = card.trained.get("dataset", "")
    path = source / "search" / "found.json"
    rows = read_object(path, "found")["found"] if path.is_file() else []
    with naming(path):
        build(tuple[_Winner, ...], rows, "found", strict=False)
    archs = {row["name"]: {k: v for k, v in row.items() if k != "name"} for row in rows}
    save_pretrained(
        out, space, variables, classes=card.classes, normalization=card.normalization,
        resolutions=card.resolutions, center_crop=card.preprocessing.center_crop,
        archs=archs, about=about,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
