"""A trained supernet as a directory of its own: its weights, and a card that says what they are.

The card, `card.json`, holds what a user must know to search, cut and fine-tune the supernet without
the run that trained it.
"""

import dataclasses
import datetime
import functools
import math
from pathlib import Path
from typing import Any

from ofa_jax import checkpoint, storage
from ofa_jax.errors import InputError
from ofa_jax.families import space_from_dict, space_to_dict
from ofa_jax.files import naming, read_json, shown, write_json
from ofa_jax.names import check_classes, check_inside
from ofa_jax.plain import build
from ofa_jax.space import PIXELS, SearchSpace

Tree = Any
CARD = "card.json"
# Fields of a space that change neither the weights nor what they compute in evaluation.
FREE = ("name", "num_classes", "dropout", "resolutions")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what the supernet takes; () and 0 where that is not known.

    The shorter side is resized to resolution / `center_crop`, the centre is kept, and pixels become
    (pixel / 255 - mean) / std.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    center_crop: float = 0.0
    interpolation: str = "bilinear, antialiased (Pillow)"
    channels: str = "RGB"

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            if len(getattr(self, field)) not in (0, 3):
                raise InputError(f"{field}={getattr(self, field)}: expected 3 numbers")
        if not 0 <= self.center_crop <= 1:
            raise InputError(f"center_crop={self.center_crop}: expected 0 to 1")


@dataclasses.dataclass(frozen=True)
class SupernetCard:
    """Everything about a supernet but its weights.

    Attributes:
      space: its search space, as `space_to_dict` writes it.
      classes: names, in the order of the logits; () where they are not known.
      preprocessing: of its images.
      resolutions: pixels that it was trained at; () where they are not known.
      source: where it comes from: "run" and "init", or "file" and its "sha256".
      trained: what it was trained on and how: "dataset", "images", "steps", "seed", "curriculum";
        empty where that is not known.
      created: when, UTC.
      files: SHA-256 of every other file, by its path in the directory.
      schema: version of these fields.
    """

    space: dict[str, Any]
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    resolutions: tuple[int, ...] = ()
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained: dict[str, Any] = dataclasses.field(default_factory=dict)
    created: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    schema: int = 1

    def __post_init__(self) -> None:
        if self.schema != 1:
            raise InputError(f"schema={self.schema}: expected 1; a newer ofa_jax wrote this card")
        space = space_from_dict(self.space)
        if len(self.classes) not in (0, space.num_classes):
            raise InputError(
                f"classes: {len(self.classes)} names, the space has {space.num_classes}"
            )
        check_classes(self.classes)
        if not all(1 <= size <= PIXELS for size in self.resolutions):
            raise InputError(
                f"resolutions={shown(self.resolutions)}: expected pixels, 1 to {PIXELS}"
            )
        for file in self.files:
            check_inside("files", file)

    @property
    def normalization(self) -> dict[str, tuple[float, ...]]:
        """ "mean" and "std" of its images, as far as they are known."""
        both = {"mean": self.preprocessing.mean, "std": self.preprocessing.std}
        return {field: value for field, value in both.items() if value}


def save_supernet(directory: Path, space: SearchSpace, variables: Tree, card: SupernetCard) -> None:
    """Writes a supernet and its card, replacing `directory` at once.

    Raises:
      OSError: it could not be written.
    """
    described = {
        "space": space_to_dict(space), "classes": list(card.classes),
        "normalization": card.normalization,
    }  # fmt: skip
    write = functools.partial(_write_card, card)
    checkpoint.save_network(directory, variables, described, write)


def _write_card(card: SupernetCard, directory: Path) -> None:
    files = {
        str(path.relative_to(directory)): checkpoint.checksum(path)
        for path in storage.below(directory)
    }
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    card = dataclasses.replace(card, created=created, files=files)
    write_json(directory / CARD, dataclasses.asdict(card))


def read_supernet_card(directory: Path) -> SupernetCard:
    """The card of a supernet's directory; of one without a card, what its description says.

    Raises:
      ValueError: no supernet, or a damaged one.
    """
    path = directory / CARD
    if path.exists() or storage.is_link(path):  # a pipe is named in the error
        with naming(path):
            card: SupernetCard = build(SupernetCard, read_json(path))
            return card
    description = checkpoint.describe(directory, check=False)
    if description.arch is not None:
        raise InputError(f"{directory} holds a subnet: expected a supernet")
    return SupernetCard(
        space_to_dict(description.space),
        description.classes,
        build(Preprocessing, description.normalization),
    )


def other_space(theirs: SearchSpace, ours: SearchSpace) -> str:
    """How a supernet's space differs from the one that a config names; "" where it does not.

    Shapes alone do not show it: other activations, strides or choices may have the same.
    """
    if type(theirs) is not type(ours):
        return f"{theirs.name}, {ours.name} here"
    for field in (field.name for field in dataclasses.fields(ours)):
        its, own = getattr(theirs, field), getattr(ours, field)
        if field not in FREE and its != own:
            return f"{field}={its}, {own} here"
    return ""


def other_resolutions(theirs: tuple[int, ...], ours: tuple[int, ...]) -> str:
    """Which resolutions lie outside those that a supernet was trained at; "" where none does."""
    low, high = min(theirs, default=0), max(theirs, default=math.inf)
    outside = [size for size in ours if not low <= size <= high]
    if not outside:
        return ""
    span = f"{low} px" if low == high else f"{low} to {high} px"
    return f"data.resolutions={ours}, trained at {span}"
