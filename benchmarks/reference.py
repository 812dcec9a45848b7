"""The reference's own networks, where PyTorch and `ofa` are installed: to compare with."""

import sys
import types
from typing import Any

import numpy as np

from ofa_jax.space import Arch, SearchSpace


def stub_imports() -> None:
    """The reference imports torchvision and gdown, of which nothing here is used.

    For a process that does nothing else with them: it takes their places.
    """
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional",
             "torchvision.datasets", "gdown")  # fmt: skip
    modules = {name: types.ModuleType(name) for name in names}
    modules["torchvision.transforms"].RandomResizedCrop = type(  # type: ignore[attr-defined]
        "RandomResizedCrop", (), {}
    )
    for name in names[1:]:
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, modules[name])
    sys.modules.update(modules)


def reference(space: SearchSpace, state_dict: dict[str, np.ndarray] | None = None) -> Any:
    """The reference's supernet of `space`, with these weights or fresh ones."""
    stub_imports()
    import torch
    from ofa.imagenet_classification.elastic_nn import networks

    common = {
        "n_classes": space.num_classes,
        "bn_param": (0.1, space.bn_eps),
        "dropout_rate": 0.0,
        "expand_ratio_list": list(space.expands),
        "depth_list": list(space.depths),
    }
    if space.widths:
        net = networks.OFAResNets(width_mult_list=list(space.widths), **common)
    else:
        mobile = getattr(space, "features", 0)
        cls = networks.OFAMobileNetV3 if mobile else networks.OFAProxylessNASNets
        width_mult = float(space.name.rpartition("w")[2])
        net = cls(width_mult=width_mult, ks_list=list(space.kernels), **common)
    if state_dict is not None:
        net.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in state_dict.items()}
        )
    return net


def reference_subnet(
    space: SearchSpace, arch: Arch, state_dict: dict[str, np.ndarray] | None = None
) -> Any:
    """The reference's own subnet, cut out of its supernet as `reference` makes it."""
    net = reference(space, state_dict)
    net.set_active_subnet(**space.arch_to_dict(arch))
    return net.get_active_subnet().eval()
