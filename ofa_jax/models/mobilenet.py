"""MobileNetV3 and ProxylessNAS as supernet and as subnet, from one definition."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ofa_jax.models.layers import ACTIVATIONS, ConvBN, MBConv, he_fan_out, torch_uniform
from ofa_jax.space import Arch, Block, SearchSpace


class MobileNetV3(nn.Module):
    """The network of `space` over `blocks`.

    With the space's own elastic `blocks` it is the supernet and is called with an `Arch`; with
    narrowed blocks it is a subnet and is called without. `train` normalises by batch statistics;
    dropout acts only where a "dropout" key is given too, so a teacher in train mode has none.
    """

    space: SearchSpace
    blocks: tuple[Block, ...]

    @nn.compact
    def __call__(
        self, images: jax.Array, arch: Arch | None = None, train: bool = False
    ) -> jax.Array:
        """Logits `[batch, classes]` float32 of `images` `[batch, height, width, 3]` float32.

        Raises:
          ValueError: images of another rank, channel count or dtype; a missing or needless arch.
        """
        self._check(images, arch)
        space, eps = self.space, self.space.bn_eps
        x = ConvBN(space.stem, 3, space.stem_stride, space.outer_act, eps, name="first_conv")(
            images, train=train
        )
        x = MBConv(space.first_block, eps, name="first_block")(x, None, None, None, train)
        for index, block in enumerate(self.blocks):
            kernel = expand = active = None
            if arch is not None:
                kernel, expand = arch.kernel[index], arch.expand[index]
                depth = jnp.asarray(space.stage_depths[block.stage])[arch.depth[block.stage]]
                active = block.position < depth
            x = MBConv(block, eps, name=block.name)(x, kernel, expand, active, train)
        x = ConvBN(space.head, act=space.outer_act, eps=eps, name="final_expand_layer")(
            x, train=train
        )
        x = x.mean((1, 2))
        if space.features:
            x = nn.Dense(
                space.features, use_bias=False, kernel_init=he_fan_out, name="feature_mix_layer"
            )(x)
            x = ACTIVATIONS[space.outer_act](x)
        x = nn.Dropout(space.dropout)(x, deterministic=not (train and self.has_rng("dropout")))
        return nn.Dense(space.num_classes, kernel_init=torch_uniform, name="classifier")(x)

    def _check(self, images: jax.Array, arch: Arch | None) -> None:
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"images have shape {images.shape}: expected [batch, height, width, 3]"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images are {images.dtype}: expected normalised float32")
        if arch is None and any(block.elastic for block in self.blocks):
            raise ValueError("the supernet needs an arch: net.apply(variables, images, arch)")
        if arch is not None and self.blocks != self.space.blocks:
            raise ValueError("a subnet takes no arch: subnet.apply(variables, images)")
        if arch is not None:
            self.space.check_single(arch)
