"""Once-for-all on handwritten digits: the whole curriculum, in minutes on two CPU cores.

Cai et al. 2020 (arXiv 1908.09791) in small: six phases of progressive shrinking over a space of
9 blocks, on scikit-learn's 1,797 real 8x8 images, drawn at 16 px. Nothing is downloaded.

    python main.py --config=configs/digits.py --workdir=runs/digits

Six to nine minutes on two CPU cores, one and a half of it the search. Expected on the 360 test
images, each subnet calibrated: largest 99.4 to 99.7 %, mean of the grid 99 %, smallest 97 to 98 %;
searched ones as good as the largest at a third of its MACs. `--config.seed=1` draws others;
`--config.phases.expand2.epochs=30` trains the last phase longer.
"""

from ml_collections import ConfigDict

from ofa_jax.config import defaults

K7, E6, D3 = (7,), (6,), (3,)


def get_config() -> ConfigDict:
    """Every field that is not here has the default of ofa_jax/config.py."""
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
        # 180 held-out images tell seven accuracies apart at most: ranks are mostly ties.
        search={"archs": 300, "generations": 150, "least_tau": 0.1},
        finetune={"epochs": 10},
    )  # fmt: skip
