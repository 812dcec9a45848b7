"""Batches on their way to the devices: one arrives while the step before it runs."""

import time
from collections.abc import Iterator
from typing import Any

from jax.sharding import Mesh

from ofa_jax import mesh
from ofa_jax.run.data.pipeline import Batch

Tree = Any


class Feed:
    """Puts batches on the devices, one ahead, and counts what went wrong on the way."""

    def __init__(self, batches: Iterator[Batch], devices: Mesh):
        self._batches, self._devices = batches, devices
        self._ahead: Tree = None
        self._waited, self._skipped = 0.0, 0

    def take(self) -> Tree:
        """The next batch, {"image", "label"} on the devices."""
        if self._ahead is None:
            self._load()
        batch, self._ahead = self._ahead, None
        return batch

    def fetch(self) -> None:
        """Starts the copy of the following batch; to be called while a step runs."""
        began = time.monotonic()
        self._load()
        self._waited += time.monotonic() - began

    def report(self) -> tuple[float, int]:
        """Seconds waited for data and corrupt images skipped, since the last report.

        The devices work meanwhile, so what they waited is less.
        """
        report = self._waited, self._skipped
        self._waited, self._skipped = 0.0, 0
        return report

    def _load(self) -> None:
        batch = next(self._batches)
        self._skipped += int(batch["skipped"].sum())
        images = {"image": batch["image"], "label": batch["label"]}
        self._ahead = mesh.shard_batch(self._devices, images)
