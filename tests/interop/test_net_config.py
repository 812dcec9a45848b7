import copy
import json
from pathlib import Path

import numpy as np
import pytest

import ofa_jax
from ofa_jax.interop import arch_from_net_config

GOLDEN = Path(__file__).parents[1] / "golden" / "once_for_all.npz"
MBV3, PROXYLESS, RESNET = (
    "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_resnet50",
)


def reference_config(space_name, index=0):
    """What the reference wrote for its largest (0) or smallest (1) subnet."""
    with np.load(GOLDEN) as golden:
        return json.loads(str(golden[f"{space_name}/net_config/{index}"]))


def changed(config, path, value):
    config = copy.deepcopy(config)
    tree = config
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value
    return config


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (MBV3, ["name"], "EfficientNet", "'EfficientNet' is an unknown family: expected MobileNet"),
        (MBV3, ["name"], "ResNets", "is of ResNets: ofa_mbv3.* is of MobileNetV3"),
        (MBV3, ["bn", "eps"], 1e-3, r"bn.eps=0.001: ofa_mbv3.* allows \(1e-05,\)"),
        (MBV3, ["first_conv", "out_channels"], 24, r"first_conv.out_channels=24: .* \(16,\)"),
        (MBV3, ["feature_mix_layer", "out_channels"], 9, r"feature_mix_layer.out_channels=9"),
        (MBV3, ["blocks", 5, "conv", "kernel_size"], 9, r"blocks\[5\].kernel_size=9: .*3, 5, 7"),
        (MBV3, ["blocks", 7, "conv", "mid_channels"], 80, r"blocks\[7\].mid_channels=80: .*120"),
        (MBV3, ["blocks", 9, "conv", "use_se"], True, r"blocks\[9\].use_se=True: .* \(False,\)"),
        (MBV3, ["blocks", 9, "conv", "act_func"], "relu", r"blocks\[9\].act_func='relu'"),
        (
            MBV3,
            ["blocks", 4, "conv", "out_channels"],
            32,
            r"blocks\[4\], out_channels=32",
        ),
        (MBV3, ["blocks", 3, "conv"], None, r"blocks\[3\] has no convolution"),
        (
            PROXYLESS,
            ["name"],
            "MobileNetV3",
            "of MobileNetV3: ofa_prox.* is of Proxyless",
        ),
        (
            RESNET,
            ["blocks", 3, "mid_channels"],
            24,
            r"blocks\[3\].mid_channels=24: .*\(48, 64",
        ),
        (RESNET, ["blocks", 4, "out_channels"], 300, r"blocks\[4\], out_channels=300, stride=2"),
        (RESNET, ["input_stem"], [], "input_stem has 0 layers: expected 2 or 3"),
        (RESNET, ["input_stem", 0, "out_channels"], 30, r"input_stem\[0\].out_channels=30"),
    ],
)
def test_what_lies_outside_the_space_is_named(name, path, value, message):
    config = changed(reference_config(name), path, value)
    with pytest.raises(ValueError, match=message):
        arch_from_net_config(config, ofa_jax.get_space(name))


def test_a_missing_block_or_field_is_named():
    space, config = ofa_jax.get_space(MBV3), reference_config(MBV3, index=1)
    shallow = changed(config, ["blocks"], [b for i, b in enumerate(config["blocks"]) if i != 4])
    with pytest.raises(ValueError, match=r"stage 2, number of blocks=1: .* allows \(2, 3, 4\)"):
        arch_from_net_config(shallow, space)
    del config["blocks"][2]["conv"]["stride"]
    with pytest.raises(ValueError, match=r"blocks\[2\], out_channels=24, stride=0"):
        arch_from_net_config(config, space)
    with pytest.raises(ValueError, match="expected an object with 'name'"):
        arch_from_net_config([], space)


def test_a_missing_middle_width_follows_from_the_ratio():
    """Files of before the reference wrote `mid_channels`."""
    for name in (MBV3, RESNET):
        space, config = ofa_jax.get_space(name), reference_config(name, index=1)
        expected = space.arch_to_dict(arch_from_net_config(config, space))
        for block in config["blocks"]:
            block.get("conv", block)["mid_channels"] = None
        assert space.arch_to_dict(arch_from_net_config(config, space)) == expected
