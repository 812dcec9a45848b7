"""PyTorch files of the reference's networks, as people have them."""

import contextlib
import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_jax.errors import InputError, foreign
from ofa_jax.extras import check_installed
from ofa_jax.families import get_space, list_spaces
from ofa_jax.files import check_regular, naming, short
from ofa_jax.interop.once_for_all import from_once_for_all
from ofa_jax.space import SearchSpace
from ofa_jax.storage import local_copy

Tree = Any
NESTED = ("state_dict", "model_ema", "model", "net")  # where trainers keep the weights
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of PyTorch before 1.6 begin


def is_torch_file(path: Path) -> bool:
    """Whether a file looks like one of `torch.save`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
        return start == LEGACY or (start[:2] == b"PK" and zipfile.is_zipfile(file))


def load_torch_supernet(path: Path, space: SearchSpace) -> tuple[SearchSpace, Tree]:
    """A supernet of a PyTorch file: its space, `space` with the file's classes, and variables.

    Raises:
      ValueError: not a file of plain tensors, or not of that space.
    """
    state_dict = read_state_dict(path)
    with naming(path):
        space = dataclasses.replace(space, num_classes=number_of_classes(state_dict, path))
        try:
            return space, from_once_for_all(state_dict, space)
        except InputError as error:
            fits = fitting_space(state_dict, path)
            if not fits:
                raise
            raise InputError(f"{path} is of the space {fits}, not {space.name}: {error}") from error


def space_of_file(path: Path) -> SearchSpace:
    """The published space whose tensors a PyTorch file has, with the file's classes.

    Raises:
      ValueError: not a file of plain tensors, or of none of these spaces.
    """
    state_dict = read_state_dict(path)
    name = fitting_space(state_dict, path)
    if not name:
        raise InputError(f"{path} is of none of the spaces {', '.join(list_spaces())}")
    return get_space(name, num_classes=number_of_classes(state_dict, path))


def fitting_space(state_dict: Mapping[str, Any], path: Path) -> str:
    """The id of the published space that has exactly these tensors; "" where none has."""
    classes = number_of_classes(state_dict, path)
    for name in list_spaces():
        with contextlib.suppress(ValueError):
            from_once_for_all(state_dict, get_space(name, num_classes=classes))
            return name
    return ""


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a PyTorch file by name, refusing whatever would run code when it is read.

    Raises:
      ValueError: the file is missing, not a plain tensor file, or holds no state dict.
    """
    check_regular(path)
    check_installed(f"{path}, a PyTorch file,", "torch", "torch")
    import torch

    def refused(error: Exception) -> str:
        reason = short(str(error).strip().split("\n")[0].split(". ")[0] or repr(error), 120)
        return (
            f"{path} is not a plain tensor file, refused: {reason};"
            " torch.save(net.state_dict(), …) writes one"
        )

    with foreign(refused), local_copy(path) as file:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    loaded = _innermost(loaded)
    if not isinstance(loaded, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in loaded.items()
    ):
        raise InputError(f"{path} holds no state dict: expected tensors by name")
    return {_bare(name): value for name, value in loaded.items()}


def number_of_classes(state_dict: Mapping[str, Any], path: Path) -> int:
    """How many classes the classifier of a state dict has.

    Raises:
      ValueError: it has no classifier.
    """
    biases = [v for k, v in state_dict.items() if k.startswith("classifier") and k.endswith("bias")]
    if len(biases) != 1 or biases[0].ndim != 1:
        raise InputError(f"{path} has no classifier bias: not a network of once-for-all")
    return int(biases[0].shape[0])


def _innermost(loaded: Any) -> Any:
    """The weights themselves, in whatever a trainer wrapped them."""
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return _innermost(loaded[key])
    return loaded


def _bare(name: str) -> str:
    """A tensor's name without what wrappers put in front of it."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return _bare(name.removeprefix(prefix))
    return name
