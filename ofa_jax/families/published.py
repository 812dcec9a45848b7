"""The spaces by id: the reference's four, and our own for small images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ofa_jax.errors import InputError
from ofa_jax.families.base import family_named, family_of
from ofa_jax.families.mobilenet import MobileNetSpace
from ofa_jax.families.resnet import ResNetSpace
from ofa_jax.files import shown
from ofa_jax.plain import build
from ofa_jax.space import SearchSpace, Stage, make_divisible


def _mobilenet_v3(name: str, width_mult: float, **kwargs: Any) -> SearchSpace:
    # Base widths, strides, activations and SE of Cai et al. 2020; `ofa_mbv3.py` in the reference.
    width = functools.partial(_scaled, width_mult)
    stages = (
        Stage(width(24), stride=2, act="relu"),
        Stage(width(40), stride=2, act="relu", se=True),
        Stage(width(80), stride=2, act="h_swish"),
        Stage(width(112), stride=1, act="h_swish", se=True),
        Stage(width(160), stride=2, act="h_swish", se=True),
    )
    return MobileNetSpace(
        name=name,
        stem=width(16),
        first=width(16),
        stages=stages,
        head=width(960),
        features=width(1280),
        **kwargs,
    )


def _scaled(width_mult: float, base: int) -> int:
    return make_divisible(base * width_mult)


def _proxyless(name: str, width_mult: float) -> SearchSpace:
    # ProxylessNAS stage widths; `ofa_proxyless.py` in the reference. ReLU6 throughout, no SE, a
    # last stage of one block, and no layer between pooling and classifier.
    width = functools.partial(_scaled, width_mult)
    widths, strides = (24, 40, 80, 96, 192), (2, 2, 2, 1, 2)
    stages = (Stage(width(w), s, "relu6") for w, s in zip(widths, strides, strict=True))
    return MobileNetSpace(
        name=name,
        stem=width(32),
        first=width(16),
        stages=(*stages, Stage(width(320), stride=1, act="relu6", depth=1, elastic=False)),
        head=width(1280),
        features=0,
        outer_act="relu6",
        first_act="relu6",
        bn_eps=1e-3,
    )


def _resnet50(name: str) -> SearchSpace:
    # Stage widths and base depths of `resnets.py` in the reference.
    stages = (
        Stage(256, stride=1, depth=2),
        Stage(512, stride=2, depth=2),
        Stage(1024, stride=2, depth=4),
        Stage(2048, stride=2, depth=2),
    )
    return ResNetSpace(name=name, stem=64, stages=stages, dropout=0.0)


def _tiny(name: str) -> SearchSpace:
    # Ours, for images of 16 to 32 px: 3 stages of up to 3 blocks, a stem that keeps every pixel,
    # and a last stage that stays at a quarter of the input, so that a digit is never one pixel.
    stages = (
        Stage(24, stride=2, act="relu"),
        Stage(40, stride=2, act="h_swish", se=True),
        Stage(64, stride=1, act="h_swish", se=True),
    )
    return MobileNetSpace(
        name=name,
        stem=16,
        stem_stride=1,
        first=16,
        stages=stages,
        head=192,
        features=256,
        depths=(1, 2, 3),
        resolutions=(16, 20, 24, 28, 32),
    )


_SPACES: dict[str, Callable[[str], SearchSpace]] = {
    "ofa_mbv3_d234_e346_k357_w1.0": functools.partial(_mobilenet_v3, width_mult=1.0),
    "ofa_mbv3_d234_e346_k357_w1.2": functools.partial(
        _mobilenet_v3, width_mult=1.2, resolutions=tuple(range(160, 225, 4))
    ),
    "ofa_proxyless_d234_e346_k357_w1.3": functools.partial(_proxyless, width_mult=1.3),
    "ofa_resnet50": _resnet50,
    "ofa_tiny_d123_e346_k357": _tiny,
}


def list_spaces() -> tuple[str, ...]:
    """The ids that `get_space` knows."""
    return tuple(_SPACES)


def get_space(name: str, **overrides: Any) -> SearchSpace:
    """A space by id, with fields such as `num_classes`, `dropout` or `depths` replaced.

    >>> space = get_space("ofa_mbv3_d234_e346_k357_w1.0", num_classes=10)
    >>> space.kernels, space.expands, space.depths
    ((3, 5, 7), (3, 4, 6), (2, 3, 4))
    >>> f"{space.size:.1e} subnets"
    '2.2e+19 subnets'

    Raises:
      ValueError: an unknown id or field.
    """
    if not isinstance(name, str) or name not in _SPACES:
        raise InputError(f"space {shown(name)} is unknown: expected one of {', '.join(_SPACES)}")
    space = _SPACES[name](name)
    defaults = {f.name: getattr(space, f.name) for f in dataclasses.fields(space)}
    unknown = [k for k in overrides if k not in defaults or k == "name"]
    if unknown:
        raise InputError(
            f"space field {shown(unknown[0])} is unknown to {name}: expected one of"
            f" {', '.join(defaults)}"
        )
    return build(type(space), {**defaults, **overrides}) if overrides else space


def space_to_dict(space: SearchSpace) -> dict[str, Any]:
    """Plain JSON-able data; `space_from_dict` reads it back."""
    return {"family": family_of(space).name, **dataclasses.asdict(space)}


def space_from_dict(data: Mapping[str, Any]) -> SearchSpace:
    """Reads what `space_to_dict` wrote, tuples having become lists in JSON.

    Raises:
      ValueError: an unknown family; a field that is unknown, missing or of another type.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"space={shown(data)}: expected the description of a search space")
    fields = dict(data)
    family = family_named(fields.pop("family", None))
    return build(family.space, fields, "space")
