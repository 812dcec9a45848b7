"""Once-for-all on ImageNet: ResNet50-D, elastic depth, expand ratio and width.

The space is that of the reference's `ofa_resnet50` (github.com/mit-han-lab/once-for-all), which was
published as weights, without a training script. So these hyper-parameters are our choice:

- the largest net: the ResNet50-D recipe of He et al. 2019 (arXiv 1812.01187): 120 epochs, cosine,
  5 of them warm-up, rate 0.1 for 256 images, smoothing 0.1, weight decay 1e-4 but none on
  biases and batch norms, no dropout, and its augmentation less hue and PCA noise;
- the order depth, expand ratio, width: what MobileNetV3's curriculum would be without kernels,
  and width last, as it changes the most;
- phase lengths of imagenet_mbv3.py, and rates in the proportions to the largest net's there: 3 %
  where one choice is added and 9 % where all are; two subnets for depth, four from then on;
- widths sorted before each phase that narrows something.

    python main.py --config=configs/imagenet_resnet50.py --workdir=runs/resnet50
    python main.py --config=configs/imagenet_resnet50.py:short --workdir=...   # 4 sizes, not 25

Data as in imagenet_mbv3.py. Meant for a TPU slice or a node of 8 GPUs; not run yet, so no hours and
no accuracy of ours. The largest net takes 7.5 GMACs at 224 px, 13 times MobileNetV3's.
"""

from ml_collections import ConfigDict

from configs.imagenet_mbv3 import BATCH, DATA, RESOLUTIONS
from ofa_jax.run.config import defaults

D2, E35, W1 = (2,), (0.35,), (1.0,)  # the largest choices
LR = 0.1 * BATCH / 256
ONE, ALL = 0.03 * LR, 0.09 * LR
LONG = {"epochs": 120, "warmup_epochs": 5, "lr": ALL, "warmup_lr": ALL / 32}
PHASES = {
    "full": {
        "depths": D2, "expands": E35, "widths": W1, "distill": 0.0,
        "epochs": 115, "warmup_epochs": 5, "lr": LR, "warmup_lr": LR / 32,
    },
    "depth1": {
        "depths": (1, 2), "expands": E35, "widths": W1, "subnets": 2, "epochs": 25, "lr": ONE,
    },
    "depth2": {"expands": E35, "widths": W1, "subnets": 2, **LONG},
    "expand1": {
        "expands": (0.25, 0.35), "widths": W1, "subnets": 4, "epochs": 25, "lr": ONE,
        "sort_width": True,
    },
    "expand2": {"widths": W1, "subnets": 4, "sort_width": True, **LONG},
    "width1": {
        "widths": (0.8, 1.0), "subnets": 4, "epochs": 25, "lr": ONE, "sort_width": True,
    },
    "width2": {"subnets": 4, "sort_width": True, **LONG},
}  # fmt: skip


def get_config(sizes: str = "continuous") -> ConfigDict:
    """`sizes`: "continuous" (128 to 224 px in steps of 4) or "short" (four of them)."""
    if sizes not in RESOLUTIONS:
        raise ValueError(f"{sizes!r}: expected {' or '.join(RESOLUTIONS)} resolutions")
    return defaults(
        space={"name": "ofa_resnet50", "dropout": 0.0},
        data={**DATA, "resolutions": RESOLUTIONS[sizes]},
        train={"checkpoint_steps": 1000, "weight_decay": 1e-4},
        curriculum=tuple(PHASES),
        phases=PHASES,
        evaluate={"resolutions": (160, 224)},
        # The paper's number of measured subnets; four sizes, as each is a program of its own.
        search={"archs": 16_000, "resolutions": (128, 160, 192, 224)},
    )
