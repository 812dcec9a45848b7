"""An example of a card."""

from ofa_jax.run.card import Card, Preprocessing

SUBNET_FILES = {"orbax", "arch.json", "labels.txt", "card.json", "README.md"}
CARD = Card(
    name="mine", space="ofa_tiny_d123_e346_k357", arch={"ks": [3], "e": [6], "d": [1]},
    resolution=16, classes=("cat", "dog"), macs=2_000_000, params=100_000,
    preprocessing=Preprocessing(18, 0.875, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)),
    accuracy={"test": {"top1": 0.9, "loss": 0.3}}, calibration_images=400,
    largest_difference_from_supernet=1e-7, source={"dataset": "pets"}, created="2026-01-01",
)  # fmt: skip
