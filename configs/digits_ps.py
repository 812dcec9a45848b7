"""Progressive shrinking on handwritten digits, the paper's way: to compare with digits.py.

Cai et al. 2020 (arXiv 1908.09791) in small: six phases over the space of digits.py. The largest net
first, then smaller kernels, fewer blocks and narrower blocks, each taught by the largest net.

    python main.py --config=configs/digits_ps.py --workdir=runs/digits_ps

Measured on two CPU cores: 97.5 % top-1 on test of the smallest subnet (seed 0).
"""

from ml_collections import ConfigDict

from ofa_jax.run.config import defaults

K7, E6, D3 = (7,), (6,), (3,)


def get_config() -> ConfigDict:
    """Every field that is not here has the default of ofa_jax/run/config.py."""
    return defaults(
        space={"name": "ofa_tiny_d123_e346_k357", "dropout": 0.1},
        data={"name": "digits", "batch_size": 64, "resolutions": (16,), "held_out": 180},
        train={"compute": "masks"},  # minutes: branches would not earn what they take to compile
        curriculum=("full", "kernel", "depth1", "depth2", "expand1", "expand2"),
        phases={
            "full": {
                "kernels": K7, "expands": E6, "depths": D3, "distill": 0.0,
                "epochs": 15, "warmup_epochs": 2, "lr": 0.1,
            },
            "kernel": {"expands": E6, "depths": D3, "epochs": 10, "lr": 0.05},
            "depth1": {"expands": E6, "depths": (2, 3), "subnets": 2, "epochs": 3, "lr": 0.01},
            "depth2": {"expands": E6, "subnets": 2, "epochs": 8, "lr": 0.05},
            "expand1": {
                "expands": (4, 6), "subnets": 4, "epochs": 2, "lr": 0.01, "sort_width": True,
            },
            "expand2": {"subnets": 4, "epochs": 14, "lr": 0.05, "sort_width": True},
        },
        # As digits.py.
        evaluate={"calibration_images": 400},
        search={"archs": 50, "random_archs": 10, "generations": 60, "least_tau": -1.0},
        extract={"archs": ("smallest",)},
        finetune={"epochs": 5},
    )  # fmt: skip
