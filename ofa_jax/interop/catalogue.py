"""The reference's published subnets: archs, and what they were measured to do on which device."""

import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

from ofa_jax.errors import InputError
from ofa_jax.families import get_space
from ofa_jax.files import naming, read_json, shown
from ofa_jax.plain import build
from ofa_jax.space import PIXELS, Arch, SearchSpace

# Such as "note10_lat-64ms_top1-80.2_finetune-75", "tx2_gpu16-96ms_...", "flops-595M_...".
ID = re.compile(
    r"(?:(?P<device>[ -~]+?)_)?(?P<kind>lat|gpu\d{1,4}|flops)-(?P<cost>\d{1,5}(\.\d{1,3})?)(?:ms|M)"
    r"_top1-(?P<top1>\d{1,2}(\.\d{1,3})?)_finetune-(?P<epochs>\d{1,4})",
    re.ASCII,
)


class Published(NamedTuple):
    """A subnet of the reference, for `extract(published.space, variables, published.arch)`.

    `top1` is the share of ImageNet's validation images after `epochs` of fine-tuning; `latency` the
    milliseconds on `device` for a batch of `batch`, None for those searched by operations alone.
    """

    space: SearchSpace
    arch: Arch
    resolution: int
    top1: float
    epochs: int
    device: str
    latency: float | None
    batch: int


OWN = Path(__file__).with_name("published.json")  # all 50 of the reference


def published(path: str | Path = OWN) -> dict[str, Published]:
    """The reference's published subnets by their ids, or those of another catalogue.

    Args:
      path: a JSON list of objects with "id", "space" (an id of `list_spaces()`), "resolution" and
        the arch's "ks", "e", "d".

    Raises:
      ValueError: no such file, no such list, an id of another form or an arch outside its space.
    """
    path = Path(path)
    with naming(path):
        values = build(tuple[dict[str, Any], ...], read_json(path), "catalogue")
        rows = [build(_Row, row, f"[{i}]", strict=False) for i, row in enumerate(values)]
        return {row.id: _subnet(row, arch) for row, arch in zip(rows, values, strict=True)}


@dataclasses.dataclass(frozen=True)
class _Row:
    """An object of a catalogue, beside its arch."""

    id: str
    space: str
    resolution: int

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise InputError(
                f"id={shown(self.id)}: expected such as note10_lat-64ms_top1-80.2_finetune-75"
            )
        if not 1 <= self.resolution <= PIXELS:
            raise InputError(f"resolution={self.resolution}: expected 1 to {PIXELS} pixels")


def _subnet(row: _Row, values: dict[str, Any]) -> Published:
    match = ID.fullmatch(row.id)
    assert match
    space, kind = get_space(row.space), match["kind"]
    return Published(
        space=space,
        arch=space.arch_from_dict(values),
        resolution=row.resolution,
        top1=float(match["top1"]) / 100,
        epochs=int(match["epochs"]),
        device=match["device"] or "",
        latency=None if kind == "flops" else float(match["cost"]),
        batch=int(kind.removeprefix("gpu")) if kind.startswith("gpu") else 1,
    )
