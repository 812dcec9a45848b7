"""Progressive shrinking on a net of four blocks, in one to three minutes: to try, and for tests.

    python main.py --config=configs/smoke.py --workdir=/tmp/smoke

Compilation is most of it. It learns a little: the largest subnet has 95.8 % of the test images
right, the smallest 72.8 % (seed 0, two CPU cores). Guessing gets 10 %.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults

STAGES = (
    {"width": 16, "stride": 2, "act": "relu"},
    {"width": 24, "stride": 2, "act": "h_swish", "se": True},
)
K7, E6, D2 = (7,), (6,), (2,)


def get_config() -> ConfigDict:
    return defaults(
        space={
            "stem": 8, "first": 8, "depths": (1, 2), "stages": STAGES, "head": 48, "features": 64,
        },
        data={"name": "digits", "batch_size": 64, "resolutions": (16,), "held_out": 180},
        # Masks compile faster than branches.
        train={"checkpoint_steps": 10, "log_every": 1, "compute": "masks"},
        curriculum=("full", "kernel", "depth", "expand1", "expand2"),
        phases={
            "full": {
                "kernels": K7, "expands": E6, "depths": D2, "distill": 0.0,
                "epochs": 3, "warmup_epochs": 1, "lr": 0.1,
            },
            "kernel": {"expands": E6, "depths": D2, "epochs": 1, "lr": 0.03},
            "depth": {"expands": E6, "subnets": 2, "epochs": 1, "lr": 0.03},
            "expand1": {
                "expands": (4, 6), "subnets": 2, "epochs": 1, "lr": 0.03, "sort_width": True,
            },
            "expand2": {"subnets": 2, "epochs": 1, "lr": 0.03, "sort_width": True},
        },
        evaluate={"calibration_images": 400},
        search={"archs": 20, "generations": 20, "random_archs": 4, "winners": 1, "least_tau": -1.0},
        extract={"archs": ("smallest",)},
        finetune={"epochs": 1},
    )  # fmt: skip
