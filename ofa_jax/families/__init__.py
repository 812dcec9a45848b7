"""The families of networks, a file each, and the published spaces by id."""

from ofa_jax.families.base import Family, Network, family_named, family_of, register
from ofa_jax.families.mobilenet import InvertedResidual, MobileNetSpace, MobileNetV3
from ofa_jax.families.published import get_space, list_spaces, space_from_dict, space_to_dict
from ofa_jax.families.resnet import Bottleneck, ResNet, ResNetSpace, Stem

__all__ = [
    "Bottleneck",
    "Family",
    "InvertedResidual",
    "MobileNetSpace",
    "MobileNetV3",
    "Network",
    "ResNet",
    "ResNetSpace",
    "Stem",
    "family_named",
    "family_of",
    "get_space",
    "list_spaces",
    "register",
    "space_from_dict",
    "space_to_dict",
]
