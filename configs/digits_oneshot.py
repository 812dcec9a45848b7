"""One-shot training, for comparison: every subnet open from the first step, in-place distillation.

    python main.py --config=configs/digits_oneshot.py --workdir=runs/digits_oneshot

The sandwich rule of BigNAS and AlphaNet (largest + smallest + 2 random a step), each learning from
labels and from the step's own largest net. The epochs make its cost that of digits.py, counted in
subnet passes (a forward and a backward; a teacher's forward is a third): 2,388 against 2,381.
"""

from ml_collections import ConfigDict

from ofa_jax.config import defaults


def get_config() -> ConfigDict:
    """As digits.py, but for the curriculum."""
    return defaults(
        space={"name": "ofa_tiny_d123_e346_k357", "dropout": 0.1},
        data={"name": "digits", "batch_size": 64, "resolutions": (16,), "held_out": 180},
        train={"compute": "masks"},  # as digits.py
        search={"least_tau": 0.1},
        distill={"source": "largest"},
        curriculum=("oneshot",),
        phases={
            "oneshot": {
                "subnets": 4, "draw": "sandwich", "epochs": 27, "warmup_epochs": 2, "lr": 0.1,
            },
        },
    )  # fmt: skip
