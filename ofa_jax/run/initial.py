"""What training starts from: random weights, or those of a trained supernet (`config.init`)."""

import dataclasses
import itertools
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import checkpoint
from ofa_jax.errors import InputError
from ofa_jax.families import space_to_dict
from ofa_jax.files import naming
from ofa_jax.interop.hub import WEIGHTS, from_pretrained, read_described
from ofa_jax.interop.once_for_all import CENTER_CROP, NORMALIZATION
from ofa_jax.interop.torch_file import is_torch_file, load_torch_supernet
from ofa_jax.names import place
from ofa_jax.network import Network
from ofa_jax.run.config import Config
from ofa_jax.run.data.transforms import other_normalization
from ofa_jax.run.groups.data import DataConfig
from ofa_jax.space import SearchSpace
from ofa_jax.supernet import Preprocessing, SupernetCard, other_resolutions, read_supernet_card
from ofa_jax.train.phases import check_curriculum

Tree = Any
UNOPTIMIZED = {"xla_backend_optimization_level": 0}


class Supernet(NamedTuple):
    """A trained supernet.

    `classes` are the names of its classes, `normalization` the mean and std of its images,
    `resolutions` their pixels, `center_crop` the share of them that evaluation keeps; all are empty
    or 0 where it does not say.
    """

    space: SearchSpace
    variables: Tree
    classes: tuple[str, ...]
    normalization: Mapping[str, tuple[float, ...]] = types.MappingProxyType({})
    resolutions: tuple[int, ...] = ()
    center_crop: float = 0.0


def starting_variables(
    config: Config, net: Network, classes: Sequence[str], resumed: bool = False
) -> Tree:
    """The variables that a run starts from, for a dataset of these classes.

    Args:
      resumed: whether a checkpoint replaces them, so that `config.init` is read only to teach.

    Raises:
      ValueError: `config.init` cannot be read or does not fit, or nothing would train what is new.
    """
    variables = random_variables(net, config)
    if not config.init or (resumed and not teaches(config, net.space)):
        return variables
    space = net.space
    supernet = read_supernet(config.init, config.search_space(space.num_classes))
    taken = classes_taken(supernet, classes)
    try:
        grown = grow(supernet.space, supernet.variables, space, variables, taken)
        check_trained(config, space, new_parts(supernet, space, taken))
        difference = other_images(supernet, config.data)
        if difference and not config.curriculum:
            raise InputError(f"it was trained with other images: {difference}")
    except InputError as error:
        raise InputError(f"init={config.init!r}: {error}") from error
    classifier = "a new classifier" if taken is None else "its classifier"
    print(f"starting from {config.init}, with {classifier}", flush=True)
    if taken is not None and not supernet.classes:
        print("its classes have no names: they are taken to be the data's, in the same order")
    if difference:
        print(f"it was trained with other images: {difference}", flush=True)
    if supernet.center_crop not in (0.0, config.data.center_crop):
        print(f"it was evaluated with data.center_crop={supernet.center_crop}, here"
              f" {config.data.center_crop}", flush=True)  # fmt: skip
    return grown


def other_images(supernet: Supernet, data: DataConfig) -> str:
    """What keeps a supernet from computing what it was trained to on these images, for people."""
    return " and ".join(filter(None, [
        other_normalization(supernet.normalization, data),
        other_resolutions(supernet.resolutions, data.resolutions),
    ]))  # fmt: skip


def teaches(config: Config, space: SearchSpace) -> bool:
    """Whether what a run starts from teaches: `init` does unless the first phase makes a teacher.

    A first phase makes one if it trains the largest net alone.
    """
    if not config.init or not config.curriculum:
        return False
    _, first = config.ordered_phases()[0]
    return not first.only_largest(space) or first.distill > 0


def new_parts(supernet: Supernet, space: SearchSpace, taken: list[int] | None) -> str:
    """What a space has that a trained supernet lacks, for people; "" where it is nothing."""
    count = len(supernet.classes) or supernet.space.num_classes
    classifier = f"a classifier of {space.num_classes} classes, not the {count} of init"
    return ", ".join(filter(None, [
        classifier if taken is None else "", missing_choices(supernet.space, space)
    ]))  # fmt: skip


def check_trained(config: Config, space: SearchSpace, new: str) -> None:
    """Raises `ValueError` if nothing trains the `new` parts, or the net that has them teaches."""
    if new and not config.curriculum:
        raise InputError(
            f"curriculum=() would not train what is new: {new}; configs/transfer.py trains new"
            " classes, and configs/grow.py a larger space"
        )
    if new:
        try:
            check_curriculum(space, config.ordered_phases())
        except InputError as error:
            raise InputError(f"it cannot teach what is new, {new}: {error}") from error


def random_variables(net: Network, config: Config) -> Tree:
    """Random variables of the supernet, from the run's seed."""
    size = config.data.resolutions[0]
    image = jnp.zeros((1, size, size, 3), jnp.float32)
    # Run once: on CPU optimising takes twice as long to compile (12 s for digits), for nothing.
    options = UNOPTIMIZED if jax.default_backend() == "cpu" else None
    init = jax.jit(net.init, compiler_options=options)
    return init(jax.random.key(config.seed), image, net.space.largest())


def read_supernet(init: str, space: SearchSpace) -> Supernet:
    """Reads a supernet's directory, the one of a run's workdir or of `save_pretrained`, or a file.

    The file is a PyTorch file of `space`.

    Raises:
      ValueError: there is none, or it cannot be read.
    """
    path = place("init", init)
    if is_torch_file(path):
        theirs, variables = load_torch_supernet(path, space)
    elif (path / WEIGHTS).is_file():
        pretrained = from_pretrained(path)
        if pretrained.arch is not None:
            raise InputError(f"init={init!r} holds a subnet: expected a supernet")
        theirs, variables = pretrained.space, pretrained.variables
    else:
        theirs, _, variables = checkpoint.load_supernet(_directory(path, init))
    card = card_at(init, theirs)
    return Supernet(theirs, variables, card.classes, card.normalization, card.resolutions,
                    card.preprocessing.center_crop)  # fmt: skip


def card_at(init: str, space: SearchSpace) -> SupernetCard:
    """The card of the supernet at one of the places that `read_supernet` takes.

    Args:
      space: of a PyTorch file, which does not say: the reference's images are assumed.

    Raises:
      ValueError: there is none, or it cannot be read.
    """
    path = place("init", init)
    if is_torch_file(path):
        images = Preprocessing(NORMALIZATION["mean"], NORMALIZATION["std"], CENTER_CROP)
        source = {"file": path.name, "sha256": checkpoint.checksum(path)}
        return SupernetCard(space_to_dict(space), (), images, space.resolutions, source)
    if (path / WEIGHTS).is_file():
        described = read_described(path)
        mean, std = (described.normalization.get(field, ()) for field in ("mean", "std"))
        with naming(path):
            images = Preprocessing(mean, std, described.center_crop)
            return SupernetCard(described.space, described.classes, images, described.resolutions)
    return read_supernet_card(_directory(path, init))


def _directory(path: Path, init: str) -> Path:
    directory = path / "supernet" if (path / "supernet").is_dir() else path
    if not directory.is_dir():
        raise InputError(
            f"init={init!r}: expected a supernet's directory, a run's workdir or a PyTorch file"
        )
    return directory


def classes_taken(supernet: Supernet, classes: Sequence[str]) -> list[int] | None:
    """Which of a supernet's classes are the dataset's, in its order; None where one is missing."""
    if supernet.classes:
        known = {name: index for index, name in enumerate(supernet.classes)}
        return [known[name] for name in classes] if known.keys() >= set(classes) else None
    same = supernet.space.num_classes == len(classes)
    return list(range(len(classes))) if same else None


def grow(
    smaller: SearchSpace, trained: Tree, space: SearchSpace, fresh: Tree, classes: list[int] | None
) -> Tree:
    """A supernet of `space` whose subnets of a `smaller` space compute what they did there.

    Smaller kernels lie in the middle of larger ones, fewer channels in front of more; what the
    trained supernet lacks keeps its `fresh` value.

    Args:
      smaller: the trained supernet's space.
      trained: its variables.
      space: the space of the result.
      fresh: variables of that space.
      classes: the trained classes to keep, by index; None keeps the fresh classifier.

    Raises:
      ValueError: `space` does not contain the smaller one.
    """
    difference = _difference(smaller, space)
    if difference:
        raise InputError(f"its space is another: {difference}")
    trained = jax.tree.map(np.asarray, trained)
    params = dict(trained["params"])
    classifier = params.pop("classifier")
    if classes is not None:
        params["classifier"] = jax.tree.map(lambda leaf: leaf[..., classes], classifier)
    grown = jax.tree.map(np.array, fresh)
    _place({**trained, "params": params}, grown)
    return grown


def missing_choices(smaller: SearchSpace, space: SearchSpace) -> str:
    """The choices of a space that a smaller one lacks, for people; "" where it lacks none."""
    fields = ("kernels", "expands", "depths", "widths")
    lacking = {f: sorted({*getattr(space, f)} - {*getattr(smaller, f)}) for f in fields}
    return ", ".join(f"{field} {values}" for field, values in lacking.items() if values)


def _difference(smaller: SearchSpace, space: SearchSpace) -> str:
    """What keeps one space from containing another; "" where it does."""
    if type(smaller) is not type(space):
        return f"{smaller.name}, {space.name} here"
    free = {"name", "num_classes", "dropout", "resolutions"}
    for field in (f.name for f in dataclasses.fields(space) if f.name not in free):
        theirs, ours = getattr(smaller, field), getattr(space, field)
        if field == "kernels":  # one transform leads from each size to the next
            contained = {*itertools.pairwise(theirs)} <= {*itertools.pairwise(ours)}
            contained &= {*theirs} <= {*ours}
        elif field in ("expands", "depths", "widths"):
            contained = {*theirs} <= {*ours}
        else:
            contained = theirs == ours
        if not contained:
            return f"{field}={theirs}, {ours} here"
    return ""


def _place(trained: Tree, grown: Tree) -> None:
    """Writes the trained arrays into the larger ones of the same names."""
    for name, value in trained.items():
        if isinstance(value, dict):
            _place(value, grown[name])
            continue
        target = grown[name]
        spatial = 2 if value.ndim == 4 else 0
        offsets = [
            (large - small) // 2 if axis < spatial else 0
            for axis, (large, small) in enumerate(zip(target.shape, value.shape, strict=True))
        ]
        if spatial:  # around a smaller kernel, nothing
            target[..., : value.shape[2], : value.shape[3]] = 0
        target[tuple(slice(o, o + n) for o, n in zip(offsets, value.shape, strict=True))] = value
