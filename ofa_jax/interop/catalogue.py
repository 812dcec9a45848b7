"""The reference's published subnets: archs, and what they were measured to do on which device."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import get_space

# Such as "note10_lat-64ms_top1-80.2_finetune-75", "tx2_gpu16-96ms_...", "flops-595M_...".
ID = re.compile(
    r"(?:(?P<device>.+?)_)?(?P<kind>lat|gpu\d+|flops)-(?P<cost>[\d.]+)(?:ms|M)"
    r"_top1-(?P<top1>[\d.]+)_finetune-(?P<epochs>\d+)"
)


class Published(NamedTuple):
    """A subnet of the reference, for `extract(published.space, variables, published.arch)`.

    `top1` is the share of ImageNet's validation images after `epochs` of fine-tuning; `latency` the
    milliseconds on `device` for a batch of `batch`, None for those found by operations alone.
    """

    space: SearchSpace
    arch: Arch
    resolution: int
    top1: float
    epochs: int
    device: str
    latency: float | None
    batch: int


def published(path: str | Path) -> dict[str, Published]:
    """The subnets of a catalogue by their ids, as the reference names them.

    Args:
      path: a JSON list of objects with "id", "space" (an id of `list_spaces()`), "resolution" and
        the arch's "ks", "e", "d".

    Raises:
      ValueError: no such file, no such list, an id of another form or an arch outside its space.
    """
    try:
        rows = json.loads(Path(path).read_text())
        return {row["id"]: _subnet(row) for row in rows}
    except OSError as error:
        raise ValueError(f"catalogue {path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"catalogue {path} is no list of archs: {error}") from error


def _subnet(row: dict[str, Any]) -> Published:
    found = ID.fullmatch(row["id"])
    if not found:
        raise ValueError(
            f"id={row['id']!r}: expected such as note10_lat-64ms_top1-80.2_finetune-75"
        )
    space, kind = get_space(row["space"]), found["kind"]
    return Published(
        space=space,
        arch=space.arch_from_dict(row),
        resolution=row["resolution"],
        top1=float(found["top1"]) / 100,
        epochs=int(found["epochs"]),
        device=found["device"] or "",
        latency=None if kind == "flops" else float(found["cost"]),
        batch=int(kind.removeprefix("gpu")) if kind.startswith("gpu") else 1,
    )
