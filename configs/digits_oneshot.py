"""One-shot training, for comparison: every subnet open from the first step, in-place distillation.

    python main.py --config=configs/digits_oneshot.py --workdir=runs/digits_oneshot

The sandwich rule of BigNAS and AlphaNet (largest + smallest + 2 random a step), each learning from
labels and from the step's own largest net. The epochs make its cost that of digits.py, counted in
subnet passes (a forward and a backward; a teacher's forward is a third).
"""

from configs import digits


def get_config():
    config = digits.get_config()
    config.curriculum = ("oneshot",)
    config.distill.source = "largest"
    config.phases = {
        "oneshot": {
            "subnets": 4, "draw": "sandwich", "epochs": 23.0, "warmup_epochs": 2.0, "lr": 0.1,
        }
    }  # fmt: skip
    return config
