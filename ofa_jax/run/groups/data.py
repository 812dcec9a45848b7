"""The group `data`: which images, and how they reach the device."""

import dataclasses
import math

from ofa_jax.errors import InputError
from ofa_jax.normalization import MEAN, STD, Normalization, check_normalization
from ofa_jax.run.groups.limits import between, one_of


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How a training image is varied: a crop, a mirror image, its colours, parts of others.

    Attributes:
      crop: "resized" takes a random box of the image and resizes it; "pad", for small images, adds
        a black border to the resized image and crops it back. Source: ours; the reference has
        "resized".
      area: least and largest share of the image that a "resized" box has. Source: the reference.
      aspect: least and largest width over height of a "resized" box. Source: the reference.
      pad: border of "pad" on every side, as a share of the image's size.
      flip: probability of a mirror image. Source: ours; the reference has 0.5.
      brightness: b scales brightness by a factor from 1 - b to 1 + b. Source: ours; the reference
        has 32 / 255.
      saturation: s scales saturation by a factor from 1 - s to 1 + s. Source: ours; the reference
        has 0.5.
      policy: "trivial" applies one random operation of random strength to each image
        (TrivialAugment, arXiv 2103.10158); "" none. Source: the reference has none.
      erase: probability that a random box, of 2 to 33 % of the image, becomes noise (random
        erasing, arXiv 1708.04896). Source: the reference has none.
      mixup: images and labels of a batch are mixed by a share from Beta(mixup, mixup) (arXiv
        1710.09412); 0 mixes none. Source: the reference has none.
      cutmix: a box of another image of the batch replaces an area from Beta(cutmix, cutmix) (arXiv
        1905.04899); 0 none; with `mixup`, each has half of the batches. Source: the reference has
        none.
    """

    crop: str = "pad"
    area: tuple[float, ...] = (0.08, 1.0)
    aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    pad: float = 0.125
    flip: float = 0.0
    brightness: float = 0.0
    saturation: float = 0.0
    policy: str = ""
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        one_of("crop", self.crop, ("resized", "pad"))
        if self.policy not in ("", "trivial"):
            raise InputError(f"policy={self.policy!r}: expected 'trivial', or '' for none")
        if not (len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1):
            raise InputError(f"area={self.area}: expected two shares of the image, from 0 to 1")
        if not (len(self.aspect) == 2 and 0.01 <= self.aspect[0] <= self.aspect[1] <= 100):
            raise InputError(f"aspect={self.aspect}: expected two ratios, width over height")
        between(self, 0, 100, "mixup", "cutmix")
        between(self, 0, 1, "pad", "flip", "brightness", "saturation", "erase")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how they reach the device.

    Names of splits may be slices, as "train[:10%]", where the dataset is one of tfds.

    Attributes:
      name: "digits", a dataset of tfds ("cifar10", "imagenette/160px-v2") or a folder: a prepared
        tfds dataset's own, or one with a folder of images for each class.
      data_dir: the folder where tfds keeps its datasets; "" takes the default of tfds.
      train_split: the split to train on.
      test_split: the split to test on; "" takes "test", else a validation split ("validation",
        "val" or "valid"), else `held_out` training images; "none" takes these in any case.
      held_out_split: the split that choices are made on; "" takes a validation split beside the
        one to test on, else `held_out` training images; "none" takes these in any case.
      held_out: training images to hold out for each of these splits that the dataset lacks.
        Source: ours; the reference holds out 10,000 of ImageNet's.
      image_key: a tfds dataset's name for the image.
      label_key: a tfds dataset's name for the class.
      corrupt: a corrupt image ends the run ("stop"), or is skipped and counted ("skip").
      batch_size: images a step, over all devices. Source: the reference's 64 of each worker.
      resolutions: input resolutions in pixels; one is sampled per batch. Source: ours;
        the reference draws from 128, 132, ... 224.
      augment: how a training image is varied.
      center_crop: evaluation resizes the shorter side to resolution / `center_crop` and takes the
        centre. Source: ours, the whole image; the reference has 0.875.
      mean: of red, green and blue, subtracted from pixels in [0, 1]. Source: the reference.
      std: of red, green and blue, by which these are then divided. Source: the reference.
      workers: processes that make batches; 0 makes them in the run's own. Source: ours; the
        reference has 8 for each of its workers.
      threads: threads of each of these processes.
      prefetch: batches that each of these processes makes ahead.
      size: (training images, classes), which `--mode=profile` takes instead of looking; () looks.
    """

    name: str = "digits"
    data_dir: str = ""
    train_split: str = "train"
    test_split: str = ""
    held_out_split: str = ""
    held_out: int = 180
    image_key: str = "image"
    label_key: str = "label"
    corrupt: str = "stop"
    batch_size: int = 64
    resolutions: tuple[int, ...] = (16,)
    augment: AugmentConfig = AugmentConfig()
    center_crop: float = 1.0
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        one_of("corrupt", self.corrupt, ("stop", "skip"))
        between(self, 0.01, 1, "center_crop")
        between(self, 0, math.inf, "held_out")
        between(self, 0, 1000, "workers")
        between(self, 1, 1000, "threads", "prefetch")
        if self.size and (len(self.size) != 2 or self.size[0] < 1 or self.size[1] < 2):
            raise InputError(f"size={self.size}: expected (training images, classes), or nothing")
        check_normalization(self.mean, self.std)

    @property
    def normalization(self) -> Normalization:
        """How pixels are normalised."""
        return Normalization(self.mean, self.std)
