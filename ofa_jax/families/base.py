"""What all families have in common, and which there are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ofa_jax.errors import InputError
from ofa_jax.files import shown
from ofa_jax.space import Arch, Block, SearchSpace
from ofa_jax.topology import Layers, of_arch


class Network(nn.Module):
    """The network of a space: a supernet, called with an `Arch`, or the subnet of one, without.

    `train` normalises by batch statistics; dropout acts only with a "dropout" key, so
    a teacher in train mode has none. It computes in the images' own type, float32 or bfloat16.

    Attributes:
      space: what it is of.
      genes: a subnet's choice indices, by the fields of `Arch`; None in a supernet.
      norm_axis: the mesh axis over which batch statistics are taken (`Norm.axis`).
      compute: how a supernet computes its elastic blocks, with equal results: as "masks", all at
        their largest; as "branches", each as sampled; or as "widths", with only the kernels at
        their largest.
    """

    space: SearchSpace
    genes: tuple[tuple[int, ...], ...] | None = None
    norm_axis: str | None = None
    compute: str = "masks"

    @property
    def arch(self) -> Arch | None:
        """A subnet's own arch."""
        if self.genes is None:
            return None
        fields = zip(self.space.dimensions, self.genes, strict=True)
        return Arch(**{field: np.asarray(own, np.int32) for field, own in fields})  # type: ignore[arg-type]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """A subnet's blocks, each with one choice left; a supernet's, with all."""
        arch = self.arch
        return self.space.blocks if arch is None else self.space.active_blocks(arch)

    @property
    def layers(self) -> Layers:
        """What it consists of, layer by layer; of a subnet with one choice left."""
        arch = self.arch
        return self.space.layers if arch is None else of_arch(self.space.layers, arch)

    def check_call(self, images: jax.Array, arch: Arch | None) -> None:
        """Raises `ValueError` unless the network may be called so."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(
                f"images have shape {images.shape}: expected [batch, height, width, 3]"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(f"images are {images.dtype}: expected normalised float32 or bfloat16")
        if arch is None and self.genes is None and self.space.size > 1:
            raise InputError("the supernet needs an arch: net.apply(variables, images, arch)")
        if arch is not None and self.genes is not None:
            raise InputError("a subnet takes no arch: subnet.apply(variables, images)")
        if arch is not None:
            self.space.check_single(arch)


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of networks: its name in files, its spaces, and the module of their networks."""

    name: str
    space: type[SearchSpace]
    network: type[Network]


_FAMILIES: dict[str, Family] = {}


def register(name: str, space: type[SearchSpace], network: type[Network]) -> None:
    """Makes a family known: from here on, everything works with its spaces."""
    _FAMILIES[name] = Family(name, space, network)


def family_named(name: object) -> Family:
    """The family of this name; `ValueError` where there is none."""
    if not isinstance(name, str) or name not in _FAMILIES:
        expected = ", ".join(_FAMILIES)
        raise InputError(f"space family {shown(name)} is unknown: expected {expected}")
    return _FAMILIES[name]


def family_of(space: SearchSpace) -> Family:
    """The family of a space; `ValueError` where its class was never registered."""
    known = {family.space: family for family in _FAMILIES.values()}
    for kind in type(space).__mro__:
        if kind in known:
            return known[kind]
    raise InputError(
        f"{space.name} is of {type(space).__name__}: no family, see `families.register`"
    )
