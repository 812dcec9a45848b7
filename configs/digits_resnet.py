"""A small ResNet-D on digits: elastic depth, expand ratio and width, one phase each.

    python main.py --config=configs/digits_resnet.py --workdir=/tmp/digits_resnet

The curriculum of the reference's ResNet: its kernels are fixed, and width multipliers come last.
Takes about two minutes on two CPU cores; expect 95 % or more of the largest subnet.
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults

STAGES = (
    {"width": 64, "stride": 1, "depth": 1},
    {"width": 128, "stride": 2, "depth": 1},
)
D1, E50, W1 = (1,), (0.5,), (1.0,)  # the largest choices


def get_config() -> ConfigDict:
    return defaults(
        space={
            "name": "ofa_resnet50", "stem": 16, "stages": STAGES, "depths": (0, 1),
            "expands": (0.25, 0.5), "widths": (0.5, 0.75, 1.0),
        },
        data={"name": "digits", "batch_size": 64, "resolutions": (32,), "held_out": 180},
        train={"checkpoint_steps": 50},
        curriculum=("full", "depth", "expand", "width1", "width2"),
        phases={
            "full": {
                "depths": D1, "expands": E50, "widths": W1, "distill": 0.0,
                "epochs": 8, "warmup_epochs": 1, "lr": 0.1,
            },
            "depth": {"expands": E50, "widths": W1, "subnets": 2, "epochs": 2, "lr": 0.03},
            "expand": {"widths": W1, "subnets": 2, "epochs": 2, "lr": 0.03, "sort_width": True},
            "width1": {
                "widths": (0.75, 1.0), "subnets": 2, "epochs": 2, "lr": 0.03, "sort_width": True,
            },
            "width2": {"subnets": 2, "epochs": 4, "lr": 0.03, "sort_width": True},
        },
        evaluate={"calibration_images": 400},
        search={"archs": 40, "winners": 1, "least_tau": -1.0},
        extract={"archs": ("smallest",)},
        finetune={"epochs": 4},
    )  # fmt: skip
