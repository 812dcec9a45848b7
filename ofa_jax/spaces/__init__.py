"""The families of search spaces, and the published ones by id."""

from ofa_jax.spaces.mobilenet import InvertedResidual, MobileNetSpace
from ofa_jax.spaces.published import get_space, list_spaces, space_from_dict, space_to_dict
from ofa_jax.spaces.resnet import Bottleneck, ResNetSpace, Stem

__all__ = [
    "Bottleneck",
    "InvertedResidual",
    "MobileNetSpace",
    "ResNetSpace",
    "Stem",
    "get_space",
    "list_spaces",
    "space_from_dict",
    "space_to_dict",
]
