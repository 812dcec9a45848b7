"""The reference's `net.config` of a specialised net, to the arch it is."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_jax.errors import InputError
from ofa_jax.families import MobileNetSpace, ResNetSpace
from ofa_jax.files import naming, read_json, shown
from ofa_jax.plain import build
from ofa_jax.space import Arch, Number, SearchSpace


@dataclasses.dataclass(frozen=True)
class Layer:
    """What is read of a layer; others of its fields are left out."""

    out_channels: int
    in_channels: int = 0
    stride: int = 0  # where it is missing
    kernel_size: int = 0
    act_func: str | None = None
    use_se: bool = False
    mid_channels: int | None = None
    expand_ratio: Number = 0


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """A layer beside its shortcut, `mobile_inverted_conv` in old files."""

    conv: Layer | None = None
    mobile_inverted_conv: Layer | None = None

    @property
    def layer(self) -> Layer | None:
        """The layer, under either name."""
        return self.conv or self.mobile_inverted_conv


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What is read of "bn"."""

    eps: float


@dataclasses.dataclass(frozen=True)
class MobileNetConfig:
    """The `net.config` of inverted residuals."""

    first_conv: Layer
    blocks: tuple[Wrapped, ...]
    feature_mix_layer: Layer
    final_expand_layer: Layer | None = None
    bn: Normalization | None = None


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The `net.config` of bottlenecks; between its ends, the stem has a wrapped layer."""

    input_stem: tuple[dict[str, Any], ...]
    blocks: tuple[Layer, ...]
    bn: Normalization | None = None

    def __post_init__(self) -> None:
        if len(self.input_stem) not in (2, 3):
            raise InputError(f"input_stem has {len(self.input_stem)} layers: expected 2 or 3")


def read_net_config(path: Path, space: SearchSpace) -> Arch:
    """The arch of a `net.config` file; raises as `arch_from_net_config`, by the file."""
    with naming(path):
        return arch_from_net_config(read_json(path), space)


def arch_from_net_config(config: Mapping[str, Any], space: SearchSpace) -> Arch:
    """The arch of a specialised net of the reference, from its `net.config`.

    Args:
      config: the JSON object, as `get_active_subnet().config` gives it; in the old files a block's
        layer is called `mobile_inverted_conv`, in new ones `conv`.
      space: the space the net was cut from.

    Raises:
      ValueError: an unknown family, or a net outside the space: the block and its value are named.
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise InputError("net.config: expected an object with 'name', 'blocks', ...")
    family = config["name"]
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(
            f"net.config name={shown(family)} is an unknown family: expected {', '.join(FAMILIES)}"
        )
    if family != space.reference:
        own = space.reference or "a family that once-for-all does not have"
        raise InputError(f"net.config is of {family}: {space.name} is of {own}")
    kind, values = FAMILIES[family]
    read = build(kind, config, "net.config", strict=False)
    _check_bn(read.bn, space)
    return space.arch_from_dict(values(read, space))


def _check_bn(bn: Normalization | None, space: SearchSpace) -> None:
    if bn is not None:
        _expect("bn.eps", bn.eps, (space.bn_eps,), space)


def _mobilenet_values(config: MobileNetConfig, space: MobileNetSpace) -> dict[str, list[Any]]:
    layers = [block.layer for block in config.blocks]
    _expect("first_conv.out_channels", config.first_conv.out_channels, (space.stem,), space)
    _check_head(config, space)
    if not layers or layers[0] is None:
        raise InputError("net.config blocks[0]: expected the fixed block after the stem")
    _expect("blocks[0].out_channels", layers[0].out_channels, (space.first,), space)

    widths = [(stage.width,) for stage in space.stages]
    placed = _place(layers[1:], widths, space, first=1)
    values: dict[str, list[Any]] = {
        "ks": [None] * len(space.blocks),
        "e": [None] * len(space.blocks),
    }
    for number, block in enumerate(space.blocks):
        if (block.stage, block.position) not in placed:
            continue
        index, layer = placed[block.stage, block.position]
        name = f"blocks[{index}]"
        _expect(f"{name}.kernel_size", layer.kernel_size, block.kernels, space)
        _expect(f"{name}.act_func", layer.act_func, (block.act,), space)
        _expect(f"{name}.use_se", layer.use_se, (bool(block.squeezes),), space)
        mid = layer.mid_channels or round(block.in_width * layer.expand_ratio)
        _expect(f"{name}.mid_channels", mid, block.mids, space)
        values["ks"][number] = layer.kernel_size
        values["e"][number] = space.expands[block.mids.index(mid)]
    return {**values, "d": _depths(placed, space)}


def _check_head(config: MobileNetConfig, space: MobileNetSpace) -> None:
    mixed = config.feature_mix_layer.out_channels
    _expect("feature_mix_layer.out_channels", mixed, (space.features or space.head,), space)
    if not space.features:
        return
    if config.final_expand_layer is None:
        raise InputError("net.config.final_expand_layer is missing")
    head = config.final_expand_layer.out_channels
    _expect("final_expand_layer.out_channels", head, (space.head,), space)


def _resnet_values(config: ResNetConfig, space: ResNetSpace) -> dict[str, list[Any]]:
    stem, convs = space.stem_block, config.input_stem
    first, last = (
        build(Layer, convs[i], f"net.config.input_stem[{i}]", strict=False) for i in (0, -1)
    )
    _expect("input_stem[0].out_channels", first.out_channels, stem.mids, space)
    _expect("input_stem[-1].out_channels", last.out_channels, stem.widths, space)
    width = [stem.mids.index(first.out_channels), stem.widths.index(last.out_channels)]
    stage_widths = [space.scaled(stage.width) for stage in space.stages]
    placed = _place(config.blocks, stage_widths, space, first=0)
    expands: list[Any] = [None] * len(space.blocks)
    for number, block in enumerate(space.blocks):
        if (block.stage, block.position) not in placed:
            continue
        index, layer = placed[block.stage, block.position]
        name = f"blocks[{index}]"
        if block.position == 0:
            width.append(block.widths.index(layer.out_channels))
        mids = block.mids[width[-1]]
        mid = layer.mid_channels
        if mid is None:
            _expect(f"{name}.expand_ratio", layer.expand_ratio, space.expands, space)
            mid = mids[space.expands.index(layer.expand_ratio)]
        _expect(f"{name}.mid_channels", mid, mids, space)
        _expect(f"{name}.kernel_size", layer.kernel_size, (3,), space)
        _expect(f"{name}.act_func", layer.act_func, (block.act,), space)
        expands[number] = space.expands[mids.index(mid)]
    depths = [d - s.depth for d, s in zip(_depths(placed, space), space.stages, strict=True)]
    residual = space.depths[-1] if len(convs) == 3 else space.depths[0]
    return {"e": expands, "d": [residual, *depths], "w": width}


# How each family of the reference is read, by the name it gives itself.
FAMILIES: dict[str, tuple[type, Callable[[Any, Any], dict[str, list[Any]]]]] = {
    "MobileNetV3": (MobileNetConfig, _mobilenet_values),
    "ProxylessNASNets": (MobileNetConfig, _mobilenet_values),
    "ResNets": (ResNetConfig, _resnet_values),
}

Place = tuple[int, int]  # stage, and position in it


def _place(
    layers: Sequence[Layer | None],
    widths: Sequence[tuple[int, ...]],
    space: SearchSpace,
    first: int,
) -> dict[Place, tuple[int, Layer]]:
    """The layer of each place with its index in `blocks`; `layers` are those from `first` on."""
    placed: dict[Place, tuple[int, Layer]] = {}
    stage, position, width = -1, 0, None
    for index, layer in enumerate(layers, first):
        if layer is None:
            raise InputError(f"net.config blocks[{index}] has no convolution: not of {space.name}")
        out, stride = layer.out_channels, layer.stride
        more = stage >= 0 and position + 1 < space.stage_depths[stage][-1]
        if more and stride == 1 and out == width == layer.in_channels:
            position += 1
        elif (
            stage + 1 < len(widths)
            and out in widths[stage + 1]
            and stride == space.stages[stage + 1].stride
        ):
            stage, position, width = stage + 1, 0, out
        else:
            raise InputError(
                f"net.config blocks[{index}], out_channels={out}, stride={stride}: {space.name}"
                f" has no such block after stage {stage + 1}, block {position + 1}"
            )
        placed[stage, position] = index, layer
    return placed


def _depths(placed: Mapping[Place, Any], space: SearchSpace) -> list[int]:
    depths = []
    for stage, allowed in enumerate(space.stage_depths):
        depth = sum(s == stage for s, _ in placed)
        _expect(f"stage {stage + 1}, number of blocks", depth, allowed, space)
        depths.append(depth)
    return depths


def _expect(what: str, value: Any, allowed: Sequence[Any], space: SearchSpace) -> None:
    if value not in allowed:
        raise InputError(f"net.config {what}={shown(value)}: {space.name} allows {tuple(allowed)}")
