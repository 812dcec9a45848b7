"""The group `space`: which subnets there are."""

import dataclasses

from ofa_jax.space import Number, Stage


@dataclasses.dataclass(frozen=True)
class SpaceConfig:
    """Which search space, and what to replace in it.

    None or () keeps what the named space has. Four of the spaces are the reference's.

    Attributes:
      name: the space's id, one of `ofa_jax.list_spaces()`.
      num_classes: classes; 0 takes the dataset's.
      dropout: share of the classifier's inputs that training drops; 0.1 in the spaces of inverted
        residuals, 0 in the ResNet. Source: the reference.
      stem: output channels of the stem; of a ResNet, at width multiplier 1.
      stem_stride: stride of the stem's convolution; not of a ResNet.
      first: output channels of the one fixed block after the stem; not of a ResNet.
      stages: the elastic stages, each with `width` (output channels), `stride`, `act` ("relu",
        "relu6", "h_swish"), `se` (squeeze-and-excitation), `depth` (blocks that are always there)
        and `elastic` (whether it has more of them).
      head: output channels of the last convolution; not of a ResNet.
      features: channels of the layer before the classifier; not of a ResNet.
      kernels: kernel sizes to choose from, odd and ascending, in pixels.
      expands: expand ratios to choose from, ascending: a block's middle channels over its input
        channels; in a ResNet, over its output channels.
      depths: numbers of blocks to choose from, ascending, added to the stage's own `depth`.
      widths: width multipliers of a stage's output to choose from, ascending; only of a ResNet.
    """

    name: str = "ofa_tiny_d123_e346_k357"
    num_classes: int = 0
    dropout: float | None = None
    stem: int | None = None
    stem_stride: int | None = None
    first: int | None = None
    stages: tuple[Stage, ...] = ()
    head: int | None = None
    features: int | None = None
    kernels: tuple[int, ...] = ()
    expands: tuple[Number, ...] = ()
    depths: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()
