"""Once-for-all on handwritten digits: the whole curriculum, in minutes on two CPU cores."""

from ofa_jax.config import defaults

K7, E6, D3 = (7,), (6,), (3,)


def get_config():
    """The default values of every other field are in ofa_jax/config.py."""
    return defaults(
        space={"name": "ofa_tiny_d123_e346_k357", "dropout": 0.1},
        data={"name": "digits", "batch_size": 64, "resolutions": (16,), "held_out": 180},
        curriculum=("full", "kernel", "depth1", "depth2", "expand1", "expand2"),
        phases={
            "full": {
                "kernels": K7, "expands": E6, "depths": D3, "distill": 0.0,
                "epochs": 25, "warmup_epochs": 2, "lr": 0.1,
            },
            "kernel": {"expands": E6, "depths": D3, "epochs": 10, "lr": 0.03},
            "depth1": {"expands": E6, "depths": (2, 3), "subnets": 2, "epochs": 3, "lr": 0.01},
            "depth2": {"expands": E6, "subnets": 2, "epochs": 8, "lr": 0.03},
            "expand1": {"expands": (4, 6), "subnets": 4, "epochs": 2, "lr": 0.01, "sort_width": True},
            "expand2": {"subnets": 4, "epochs": 8, "lr": 0.03, "sort_width": True},
        },
    )  # fmt: skip
