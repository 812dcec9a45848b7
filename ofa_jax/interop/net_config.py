"""The reference's `net.config` of a specialised net, to the arch it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from ofa_jax.space import Arch, SearchSpace
from ofa_jax.spaces import MobileNetSpace, ResNetSpace

# The families of the reference, and the layers that carry their fixed widths.
FAMILIES = ("MobileNetV3", "ProxylessNASNets", "ResNets")


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
        raise ValueError("net.config: expected an object with 'name', 'blocks', ...")
    family = config["name"]
    if family not in FAMILIES:
        raise ValueError(
            f"net.config name={family!r} is an unknown family: expected {', '.join(FAMILIES)}"
        )
    if family != _family(space):
        raise ValueError(f"net.config is of {family}: {space.name} is of {_family(space)}")
    eps = config.get("bn", {}).get("eps", space.bn_eps)
    _expect("bn.eps", eps, (space.bn_eps,), space)
    try:
        if isinstance(space, ResNetSpace):
            return space.arch_from_dict(_resnet_values(config, space))
        assert isinstance(space, MobileNetSpace)
        return space.arch_from_dict(_mobilenet_values(config, space))
    except KeyError as error:
        raise ValueError(f"net.config lacks {error} in one of its layers") from error


def _family(space: SearchSpace) -> str:
    if isinstance(space, ResNetSpace):
        return "ResNets"
    return "MobileNetV3" if getattr(space, "features", 0) else "ProxylessNASNets"


def _mobilenet_values(config: Mapping[str, Any], space: MobileNetSpace) -> dict[str, list[Any]]:
    layers = [block.get("conv") or block.get("mobile_inverted_conv") for block in config["blocks"]]
    _expect("first_conv.out_channels", config["first_conv"]["out_channels"], (space.stem,), space)
    for name, width in _head(space).items():
        _expect(f"{name}.out_channels", config[name]["out_channels"], (width,), space)
    if not layers or layers[0] is None:
        raise ValueError("net.config blocks[0]: expected the fixed block behind the stem")
    _expect("blocks[0].out_channels", layers[0]["out_channels"], (space.first,), space)

    widths = [(stage.width,) for stage in space.stages]
    found = _place(layers[1:], widths, space, first=1)
    values: dict[str, list[Any]] = {
        "ks": [None] * len(space.blocks),
        "e": [None] * len(space.blocks),
    }
    for (stage, position), index in found.items():
        number, block = next(
            (n, b) for n, b in enumerate(space.blocks) if (b.stage, b.position) == (stage, position)
        )
        layer, name = layers[index], f"blocks[{index}]"
        _expect(f"{name}.kernel_size", layer["kernel_size"], block.kernels, space)
        _expect(f"{name}.act_func", layer["act_func"], (block.act,), space)
        _expect(f"{name}.use_se", bool(layer["use_se"]), (bool(block.squeezes),), space)
        mid = layer.get("mid_channels") or round(block.in_width * layer["expand_ratio"])
        _expect(f"{name}.mid_channels", mid, block.mids, space)
        values["ks"][number] = layer["kernel_size"]
        values["e"][number] = space.expands[block.mids.index(mid)]
    return {**values, "d": _depths(found, space)}


def _head(space: MobileNetSpace) -> dict[str, int]:
    if not space.features:
        return {"feature_mix_layer": space.head}
    return {"final_expand_layer": space.head, "feature_mix_layer": space.features}


def _resnet_values(config: Mapping[str, Any], space: ResNetSpace) -> dict[str, list[Any]]:
    stem, convs = space.stem_block, config["input_stem"]
    if len(convs) not in (2, 3):
        raise ValueError(f"net.config input_stem has {len(convs)} layers: expected 2 or 3")
    _expect("input_stem[0].out_channels", convs[0]["out_channels"], stem.mids, space)
    _expect("input_stem[-1].out_channels", convs[-1]["out_channels"], stem.widths, space)
    width = [
        stem.mids.index(convs[0]["out_channels"]),
        stem.widths.index(convs[-1]["out_channels"]),
    ]
    layers = config["blocks"]
    stage_widths = [space.scaled(stage.width) for stage in space.stages]
    found = _place(layers, stage_widths, space, first=0)
    expands: list[Any] = [None] * len(space.blocks)
    for number, block in enumerate(space.blocks):
        if (block.stage, block.position) not in found:
            continue
        index = found[block.stage, block.position]
        layer, name = layers[index], f"blocks[{index}]"
        if block.position == 0:
            width.append(block.widths.index(layer["out_channels"]))
        mids = block.mids[width[-1]]
        mid = layer.get("mid_channels")
        if mid is None:
            _expect(f"{name}.expand_ratio", layer["expand_ratio"], space.expands, space)
            mid = mids[space.expands.index(layer["expand_ratio"])]
        _expect(f"{name}.mid_channels", mid, mids, space)
        _expect(f"{name}.kernel_size", layer["kernel_size"], (3,), space)
        _expect(f"{name}.act_func", layer["act_func"], (block.act,), space)
        expands[number] = space.expands[mids.index(mid)]
    depths = [d - s.depth for d, s in zip(_depths(found, space), space.stages, strict=True)]
    residual = space.depths[-1] if len(convs) == 3 else space.depths[0]
    return {"e": expands, "d": [residual, *depths], "w": width}


def _place(
    layers: Sequence[Any], widths: Sequence[tuple[int, ...]], space: SearchSpace, first: int
) -> dict[tuple[int, int], int]:
    """(stage, position) -> index in `blocks`, of which `layers` are those from `first` on."""
    found: dict[tuple[int, int], int] = {}
    stage, position, width = -1, 0, None
    for index, layer in enumerate(layers, first):
        if not layer:
            raise ValueError(f"net.config blocks[{index}] has no convolution: not of {space.name}")
        out, stride = layer["out_channels"], layer["stride"]
        more = stage >= 0 and position + 1 < space.stage_depths[stage][-1]
        if more and stride == 1 and out == width == layer["in_channels"]:
            position += 1
        elif (
            stage + 1 < len(widths)
            and out in widths[stage + 1]
            and stride == space.stages[stage + 1].stride
        ):
            stage, position, width = stage + 1, 0, out
        else:
            raise ValueError(
                f"net.config blocks[{index}], out_channels={out}, stride={stride}: {space.name}"
                f" has no such block behind stage {stage + 1}, block {position + 1}"
            )
        found[stage, position] = index
    return found


def _depths(found: Mapping[tuple[int, int], int], space: SearchSpace) -> list[int]:
    depths = []
    for stage, allowed in enumerate(space.stage_depths):
        depth = sum(s == stage for s, _ in found)
        _expect(f"stage {stage + 1}, number of blocks", depth, allowed, space)
        depths.append(depth)
    return depths


def _expect(what: str, value: Any, allowed: Sequence[Any], space: SearchSpace) -> None:
    if value not in allowed:
        raise ValueError(f"net.config {what}={value!r}: {space.name} allows {tuple(allowed)}")
