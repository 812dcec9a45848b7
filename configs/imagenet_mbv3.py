"""Once-for-all on ImageNet: MobileNetV3, with the hyper-parameters the reference published.

Cai et al. 2020 (arXiv 1908.09791) and its code, github.com/mit-han-lab/once-for-all.

    python main.py --config=configs/imagenet_mbv3.py --workdir=runs/mbv3     # width 1.0
    python main.py --config=configs/imagenet_mbv3.py:1.2 --workdir=...          # width 1.2
    python main.py --config=configs/imagenet_mbv3.py:1.0,short --workdir=...    # 4 sizes, not 25

tfds prepares `imagenet2012` from the two archives of image-net.org, which have no free download
(its page of the catalogue says where to put them; `--config.data.data_dir=FOLDER` reads what is
prepared already), or `--config.data.name=FOLDER` takes a folder with train/CLASS and val/CLASS.

Resolutions: the reference draws each batch from 128, 132, ... 224, and the step is compiled once
for each of these 25 sizes and each number of subnets (1, 2, 4): 75 programs. "short" is 128, 160,
192 and 224: 12 programs.

Batch 2,048, as 32 workers of 64; rates are the reference's for one worker times 32. A smaller
batch wants smaller rates in proportion: copy this file and change WORKERS.

Hardware and time: the paper gives 1,200 V100 hours for everything, 32 V100 for about two days.
Meant here for a TPU slice or node of 8 GPUs; not run yet, so no accuracy of ours.
`--mode=profile --target=v5e:4x4` says what 16 chips need at least.
Batches of 2,048 take 0.3 GB each at 224 px, and every one of `data.workers` holds about three.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults

WORKERS = 32
BATCH = 64 * WORKERS
K7, E6, D4 = (7,), (6,), (4,)
RESOLUTIONS = {"continuous": tuple(range(128, 225, 4)), "short": (128, 160, 192, 224)}
SPACES = {"1.0": "ofa_mbv3_d234_e346_k357_w1.0", "1.2": "ofa_mbv3_d234_e346_k357_w1.2"}
DATA = {
    "name": "imagenet2012", "test_split": "validation", "held_out": 10_000,
    "batch_size": BATCH,
    "augment": {
        "crop": "resized", "area": (0.08, 1.0), "flip": 0.5,
        "brightness": 32 / 255, "saturation": 0.5,
    },
    "center_crop": 0.875, "workers": 16, "threads": 1, "prefetch": 1,
    "size": (1_271_167, 1000),  # for --mode=profile
}  # fmt: skip
PHASES = {
    "full": {  # the paper's; the reference has no script for it. The warm-up is ours.
        "kernels": K7, "expands": E6, "depths": D4, "distill": 0.0,
        "epochs": 175, "warmup_epochs": 5, "lr": 2.6, "warmup_lr": 2.6 / WORKERS,
    },
    "kernel": {
        "expands": E6, "depths": D4, "epochs": 120, "warmup_epochs": 5,
        "lr": 3e-2 * WORKERS, "warmup_lr": 3e-2,
    },
    "depth1": {
        "expands": E6, "depths": (3, 4), "subnets": 2, "epochs": 25, "lr": 2.5e-3 * WORKERS,
    },
    "depth2": {
        "expands": E6, "subnets": 2, "epochs": 120, "warmup_epochs": 5,
        "lr": 7.5e-3 * WORKERS, "warmup_lr": 7.5e-3,
    },
    "expand1": {
        "expands": (4, 6), "subnets": 4, "epochs": 25, "lr": 2.5e-3 * WORKERS, "sort_width": True,
    },
    "expand2": {
        "subnets": 4, "epochs": 120, "warmup_epochs": 5, "lr": 7.5e-3 * WORKERS,
        "warmup_lr": 7.5e-3, "sort_width": True,
    },
}  # fmt: skip


def get_config(options: str = "1.0") -> ConfigDict:
    """`options`: the width multiplier, "1.0" or "1.2", and after a comma "short"."""
    width, _, sizes = options.partition(",")
    if width not in SPACES:
        raise ValueError(f"imagenet_mbv3.py:{options}: expected 1.0 or 1.2, found {width!r}")
    return imagenet(SPACES[width], sizes)


def imagenet(space: str, sizes: str) -> ConfigDict:
    """The reference's run of a MobileNet space; `sizes` "" or "continuous", or "short"."""
    sizes = sizes or "continuous"
    if sizes not in RESOLUTIONS:
        raise ValueError(f"{sizes!r}: expected {' or '.join(RESOLUTIONS)} resolutions")
    return defaults(
        space={"name": space, "dropout": 0.1},
        data={**DATA, "resolutions": RESOLUTIONS[sizes]},
        train={"checkpoint_steps": 1000},
        curriculum=tuple(PHASES),
        phases=PHASES,
        evaluate={"resolutions": (160, 224)},
        # The paper's number of measured subnets; four sizes, as each is a program of its own.
        search={"archs": 16_000, "resolutions": (128, 160, 192, 224)},
    )
