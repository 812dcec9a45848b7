"""Old place of `families`."""

from ofa_jax.families import (
    MobileNetSpace,
    ResNetSpace,
    get_space,
    list_spaces,
    space_from_dict,
    space_to_dict,
)

__all__ = [
    "MobileNetSpace",
    "ResNetSpace",
    "get_space",
    "list_spaces",
    "space_from_dict",
    "space_to_dict",
]
