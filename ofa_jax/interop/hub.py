"""Networks as the Hugging Face Hub has them: safetensors, a description and a model card.

A supernet's description may name archs, such as those of a searched front: `from_pretrained` gives
the supernet, and `archs` what to `extract` from it.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ofa_jax import names
from ofa_jax.errors import InputError, foreign
from ofa_jax.extras import check_installed
from ofa_jax.families import space_from_dict, space_to_dict
from ofa_jax.files import naming, read_object, short, write_json, write_text
from ofa_jax.names import check_classes
from ofa_jax.network import Network, build_subnet, build_supernet
from ofa_jax.plain import build
from ofa_jax.space import Arch, SearchSpace
from ofa_jax.storage import is_link, local_copy

Tree = Any
WEIGHTS, DESCRIPTION, README = "model.safetensors", "config.json", "README.md"
EXTRA = "hub"


class Pretrained(NamedTuple):
    """A network of the Hub; `arch` is None for a supernet, whose `archs` may have names."""

    space: SearchSpace
    net: Network
    variables: Tree
    arch: Arch | None
    classes: tuple[str, ...]
    archs: dict[str, dict[str, Any]]
    normalization: Mapping[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Described:
    """What `config.json` holds; `archs` and `about` are for people and `--arch`.

    `resolutions` and `center_crop` are () and 0 where they are not known.
    """

    space: dict[str, Any]
    library: str = "ofa_jax"
    arch: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    normalization: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    resolutions: tuple[int, ...] = ()
    center_crop: float = 0.0
    archs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def save_pretrained(
    directory: Path,
    space: SearchSpace,
    variables: Tree,
    arch: Arch | None = None,
    *,
    classes: tuple[str, ...] = (),
    normalization: Mapping[str, tuple[float, ...]] | None = None,
    resolutions: tuple[int, ...] = (),
    center_crop: float = 0.0,
    archs: Mapping[str, Mapping[str, Any]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network to a new directory, as `from_pretrained` reads it.

    Args:
      directory: must not exist.
      space: the network's space.
      variables: {"params", "batch_stats"}.
      arch: of an extracted subnet; None for a supernet.
      classes: names, in the order of the logits.
      normalization: "mean" and "std" of its images, of red, green and blue.
      resolutions: pixels that it was trained at, where they are known.
      center_crop: share of the resized image's side that evaluation keeps; 0 where not known.
      archs: of a supernet, archs by name, as `arch_to_dict` has them, with what was measured.
      about: for the model card: "license", "dataset", "top1" and whatever else JSON holds.

    Raises:
      ValueError: the directory exists, or safetensors is not installed.
    """
    check_installed("save_pretrained", EXTRA, "safetensors")
    from safetensors.numpy import save_file

    if directory.exists() or is_link(directory):
        raise InputError(f"{directory} exists: give a new directory")
    described = Described(
        space=space_to_dict(space),
        arch=None if arch is None else space.arch_to_dict(arch),
        classes=classes,
        normalization=dict(normalization or {}),
        resolutions=resolutions,
        center_crop=center_crop,
        archs={name: dict(value) for name, value in (archs or {}).items()},
        about=dict(about or {}),
    )
    tensors = {
        name: np.ascontiguousarray(value) for name, value in _named(jax.device_get(variables))
    }
    directory.mkdir(parents=True)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "flax"})
    write_json(directory / DESCRIPTION, dataclasses.asdict(described))
    write_text(directory / README, model_card(space, described))


def from_pretrained(place: str | Path, revision: str | None = None) -> Pretrained:
    """Reads a network from a directory, or from the Hub by its name, such as "user/name".

    Raises:
      ValueError: no such network, a damaged one, or a Hub that cannot be reached.
    """
    check_installed("from_pretrained", EXTRA, "safetensors")
    directory = names.place("place", str(place))
    if not directory.is_dir():
        directory = _download(str(place), revision)
    described = read_described(directory)
    with naming(directory / DESCRIPTION):
        space = space_from_dict(described.space)
        arch = None if described.arch is None else space.arch_from_dict(described.arch)
    net = build_supernet(space) if arch is None else build_subnet(space, arch)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    like = jax.eval_shape(
        net.init, jax.random.key(0), image, space.largest() if arch is None else None
    )
    variables = _read_variables(directory / WEIGHTS, like)
    return Pretrained(space, net, variables, arch, described.classes, described.archs,
                      described.normalization)  # fmt: skip


def read_described(directory: Path) -> Described:
    """What the description of a directory that `save_pretrained` wrote holds.

    Raises:
      ValueError: there is none, or a damaged one.
    """
    path = directory / DESCRIPTION
    described: Described = build(Described, read_object(path, "space"), str(path), strict=False)
    with naming(path):
        check_classes(described.classes)
    return described


def push_to_hub(directory: Path, name: str, *, private: bool = False) -> str:
    """Uploads what `save_pretrained` wrote; the address of the new commit.

    Args:
      directory: as written.
      name: "user/name"; made where it does not exist. The token is huggingface_hub's own.
      private: whether only its owner may see it, where it is made.

    Raises:
      ValueError: no such directory, or the Hub refuses or cannot be reached.
    """
    check_installed("push_to_hub", EXTRA, "huggingface_hub")
    from huggingface_hub import HfApi

    read_object(directory / DESCRIPTION, "space")
    with foreign(lambda error: f"{name!r} could not be pushed to the Hub: {short(error)}"):
        api = HfApi(library_name="ofa_jax")
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=str(directory)))


def _download(name: str, revision: str | None) -> Path:
    check_installed(f"{name!r}, which is no directory here,", EXTRA, "huggingface_hub")
    from huggingface_hub import snapshot_download

    what = f"{name!r} is no directory, and cannot be had from the Hub"
    with foreign(lambda error: f"{what}: {short(error)}"):
        return Path(snapshot_download(
            name, revision=revision, allow_patterns=[WEIGHTS, DESCRIPTION], library_name="ofa_jax"
        ))  # fmt: skip


def _named(tree: Tree) -> list[tuple[str, Any]]:
    """Each array with its path, as "params.stage1_block1.…"."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(".".join(key.key for key in path), leaf) for path, leaf in leaves]


def _read_variables(path: Path, like: Tree) -> Tree:
    """The arrays of a safetensors file, which must be those of `like`."""
    from safetensors.numpy import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    what = f"{path} is no safetensors file"
    with foreign(lambda error: f"{what}: {short(error)}"), local_copy(path) as file:
        arrays = load_file(file)
    expected = dict(_named(like))
    wrong = sorted(expected.keys() ^ arrays.keys()) or sorted(
        name for name in expected if arrays[name].shape != expected[name].shape
    )
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"{path} is of another network than {DESCRIPTION} says: missing, unknown or of another"
            f" shape: {', '.join(map(repr, wrong[:3]))}{more}"
        )
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise InputError(f"{path}: {name!r} holds what is no finite number of 32 bits")
    leaves = [jnp.asarray(arrays[name]) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def model_card(space: SearchSpace, described: Described) -> str:
    """The model card: the fields that the Hub reads, and how to use the network."""
    about, kind = described.about, "supernet" if described.arch is None else "subnet"
    fields = {
        "license": about.get("license", "other"),
        "library_name": "ofa_jax",
        "pipeline_tag": "image-classification",
        "tags": ["jax", "flax", "once-for-all", "neural-architecture-search", kind],
        "datasets": [about["dataset"]] if about.get("dataset") else [],
        "metrics": ["accuracy"],
    }
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())
    return CARD.format(
        front=front, kind=kind, space=space.name, classes=space.num_classes,
        about="".join(f"- {key}: {value}\n" for key, value in about.items()) or "- no details\n",
        use=USE[kind], archs=_archs_table(described.archs),
    )  # fmt: skip


def _archs_table(archs: Mapping[str, Mapping[str, Any]]) -> str:
    if not archs:
        return ""
    keys = [key for key in next(iter(archs.values())) if key not in ("arch", "name")]
    rows = [("name", *keys), ("---",) * (len(keys) + 1)]
    rows += [(name, *(str(value.get(key, "")) for key in keys)) for name, value in archs.items()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f'\n## Archs\n\n`pretrained.archs[name]["arch"]`, for `space.arch_from_dict`:\n\n{table}\n'
    )


CARD = """---
{front}
---

# A {kind} of {space}

{classes} classes. Trained once for all with ofa_jax.

{about}
## Use

```python
{use}
```
{archs}"""
USE = {
    "supernet": """import ofa_jax

pretrained = ofa_jax.interop.from_pretrained("THIS/NAME")
arch = pretrained.space.smallest()  # or of pretrained.archs
subnet, variables = ofa_jax.extract(pretrained.space, pretrained.variables, arch)
# Its batch statistics are those of training: ofa_jax.calibrate estimates them again.""",
    "subnet": """import ofa_jax

pretrained = ofa_jax.interop.from_pretrained("THIS/NAME")
# images: [batch, height, width, 3], normalised
logits = pretrained.net.apply(pretrained.variables, images)""",
}
