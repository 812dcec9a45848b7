"""Once-for-all on Imagenette: ten classes of ImageNet, the whole curriculum on one accelerator.

Cai et al. 2020 (arXiv 1908.09791) on 9,469 photographs; the paper has no such run. The space,
transforms and phases are those of imagenet_mbv3.py, with images of 96 to 160 px and fewer steps.

    python main.py --config=configs/imagenette.py --workdir=runs/imagenette

tfds downloads the dataset (95 MB) and prepares it, once, which needs `pip install tensorflow`;
`--config.data.name=... --config.data.data_dir=FOLDER` reads another that is prepared already.
Meant for one GPU or TPU board: some 20,000 steps. Not run to the end yet, so there is no accuracy
here; estimated at 2 to 4 hours on one data-centre GPU, and days on CPU cores.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults

K7, E6, D4 = (7,), (6,), (4,)
BATCH = 128
WORKERS = BATCH / 64  # rates are the reference's, which are for 64 images a worker


def get_config() -> ConfigDict:
    return defaults(
        space={"name": "ofa_mbv3_d234_e346_k357_w1.0", "dropout": 0.1},
        data={
            "name": "imagenette/160px-v2", "batch_size": BATCH,
            "resolutions": (96, 112, 128, 144, 160), "held_out": 500,
            "augment": {
                "crop": "resized", "area": (0.25, 1.0), "flip": 0.5,
                "brightness": 32 / 255, "saturation": 0.5,
            },
            "center_crop": 0.875, "workers": 4, "threads": 1,
        },
        train={"checkpoint_steps": 500},
        curriculum=("full", "kernel", "depth1", "depth2", "expand1", "expand2"),
        phases={
            "full": {
                "kernels": K7, "expands": E6, "depths": D4, "distill": 0.0,
                "epochs": 115, "warmup_epochs": 5, "lr": 8e-2 * WORKERS,
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
