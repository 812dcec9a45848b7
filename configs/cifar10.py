"""Once-for-all on CIFAR-10: MobileNetV3 blocks at 24 to 32 px.

Cai et al. 2020 (arXiv 1908.09791), carried over to small images by us; the paper has no such run.
Images are padded by 4 px, cropped back and flipped, as He et al. 2016 (arXiv 1512.03385) do.

    python main.py --config=configs/cifar10.py --workdir=runs/cifar10

tfds downloads the dataset (170 MB) and prepares it, once, which needs `pip install tensorflow`;
`--config.data.data_dir=FOLDER` reads what is prepared already. Meant for one GPU or TPU board:
some 41,000 steps. Not run to the end yet, so there is no accuracy here; estimated at 2 to 4 hours
on one data-centre GPU, and days on CPU cores.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults

# The five stages of MobileNetV3, narrower at the end, with two strides of the five left out.
STAGES = (
    {"width": 24, "stride": 1, "act": "relu"},
    {"width": 40, "stride": 2, "act": "relu", "se": True},
    {"width": 80, "stride": 2, "act": "h_swish"},
    {"width": 112, "stride": 1, "act": "h_swish", "se": True},
    {"width": 160, "stride": 2, "act": "h_swish", "se": True},
)
K7, E6, D4 = (7,), (6,), (4,)
BATCH = 256
WORKERS = BATCH / 64  # rates are the reference's, which are for 64 images a worker


def get_config() -> ConfigDict:
    return defaults(
        space={
            "name": "ofa_mbv3_d234_e346_k357_w1.0", "dropout": 0.1,
            "stem_stride": 1, "stages": STAGES, "head": 640, "features": 1024,
        },
        data={
            "name": "cifar10", "batch_size": BATCH, "resolutions": (24, 28, 32),
            "held_out": 5000,
            "augment": {"crop": "pad", "pad": 0.125, "flip": 0.5},
            "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616),
        },
        train={"checkpoint_steps": 500},
        curriculum=("full", "kernel", "depth1", "depth2", "expand1", "expand2"),
        phases={
            "full": {
                "kernels": K7, "expands": E6, "depths": D4, "distill": 0.0,
                "epochs": 75, "warmup_epochs": 5, "lr": 8e-2 * WORKERS,
            },
            "kernel": {
                "expands": E6, "depths": D4, "epochs": 40, "warmup_epochs": 2, "lr": 3e-2 * WORKERS,
            },
            "depth1": {
                "expands": E6, "depths": (3, 4), "subnets": 2, "epochs": 10, "lr": 2.5e-3 * WORKERS,
            },
            "depth2": {
                "expands": E6, "subnets": 2, "epochs": 40, "warmup_epochs": 2,
                "lr": 7.5e-3 * WORKERS,
            },
            "expand1": {
                "expands": (4, 6), "subnets": 4, "epochs": 10, "lr": 2.5e-3 * WORKERS,
                "sort_width": True,
            },
            "expand2": {
                "subnets": 4, "epochs": 50, "warmup_epochs": 2, "lr": 7.5e-3 * WORKERS,
                "sort_width": True,
            },
        },
    )  # fmt: skip
