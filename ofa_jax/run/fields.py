"""What a trained supernet decides of a config that begins with it."""

import dataclasses
from typing import Any

from ofa_jax.families import get_space, space_from_dict
from ofa_jax.files import read_object
from ofa_jax.interop.torch_file import is_torch_file, space_of_file
from ofa_jax.names import place
from ofa_jax.run.groups.space import SpaceConfig
from ofa_jax.run.initial import card_at
from ofa_jax.space import SearchSpace

Fields = dict[str, Any]
# Of `data`: what other images shall have in common with those that the supernet was trained on.
IMAGES = ("batch_size", "resolutions", "center_crop", "mean", "std")


def fields_of(init: str) -> Fields:
    """Fields of a config that begins with a supernet: those of the run that trained it.

    Where there is no run, its card gives the space and how images are made.

    Args:
      init: a run's workdir, a supernet's directory, or a PyTorch file of a published space.

    Raises:
      ValueError: there is no supernet, or it cannot be read.
    """
    path = place("init", init)
    if (path / "config.json").is_file() and (path / "supernet").is_dir():
        return {**read_object(path / "config.json", "space", "data"), "init": init}
    file = is_torch_file(path)
    space = space_of_file(path) if file else None
    card = card_at(init, space or get_space("ofa_tiny_d123_e346_k357"))
    space = space or space_from_dict(card.space)
    images = dataclasses.asdict(card.preprocessing)
    data = {field: images[field] for field in ("mean", "std", "center_crop") if images[field]}
    if card.resolutions:  # of a file's, which are many, the largest
        data["resolutions"] = card.resolutions[-1:] if file else card.resolutions
    if isinstance(card.trained.get("dataset"), str):
        data["name"] = card.trained["dataset"]
    return {"init": init, "space": space_fields(space), "data": data}


def space_fields(space: SearchSpace) -> Fields:
    """A space as `config.space` has it, but for the number of classes, which is the data's."""
    named = get_space(space.name)
    fields = {field.name for field in dataclasses.fields(SpaceConfig)} - {"name", "num_classes"}
    own = {f: getattr(space, f) for f in fields if hasattr(space, f)}
    changed = {f: value for f, value in own.items() if value != getattr(named, f)}
    return {"name": space.name, **changed}


def searched_space(fields: Fields) -> SearchSpace:
    """The space of a config's fields, for any number of classes."""
    kinds = {field.name for field in dataclasses.fields(SpaceConfig)} - {"num_classes"}
    values = {key: value for key, value in fields["space"].items() if key in kinds}
    name = values.pop("name")
    return get_space(
        name, **{k: value for k, value in values.items() if value not in (None, (), [])}
    )
