"""Every exported file of subnets on a run's whole test split: size, noise and top-1.

    python main.py --mode=export --workdir=runs/digits --subnet=smallest --format=onnx,onnx-int8
    python -m benchmarks.precision --workdir=runs/digits --subnets smallest

Signal over noise and differing classes are against the subnet's own logits. Needs the extra deploy.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ofa_jax
from benchmarks import harness

harness.needs("onnx", "onnxruntime", "ai_edge_litert")
from ofa_jax.deploy.batches import in_batches
from ofa_jax.deploy.compare import snr
from ofa_jax.normalization import normalize_images
from ofa_jax.run import workdir as workdir_lib
from ofa_jax.run.card import Card, find_subnet, read_card
from ofa_jax.run.config import Config
from ofa_jax.run.data import pipeline
from ofa_jax.run.data.datasets import load_dataset
from ofa_jax.run.export import load_export

BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--subnets", nargs="+", required=True, help="names or directories")
    parser.add_argument("--json", default="", help="file for the figures")
    args = parser.parse_args()
    config, rows = workdir_lib.stored_config(args.workdir), []
    for name in args.subnets:
        directory = find_subnet(args.workdir, name)
        card = read_card(directory)
        pixels, labels = split(config, card, "test")
        rows += subnet_rows(directory, card, pixels, labels)
    harness.finish(args.json, {"rows": rows})


def split(config: Config, card: Card, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split as a subnet sees them, uint8, and their labels."""
    batches = pipeline.evaluation_batches(
        load_dataset(config.data), name, config.data, card.resolution, BATCH
    )
    parts = [(b["image"][b["weight"] > 0], b["label"][b["weight"] > 0]) for b in batches]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return pixels, labels


def subnet_rows(
    directory: Path, card: Card, pixels: np.ndarray, labels: np.ndarray
) -> list[dict[str, Any]]:
    """A row for each of the subnet's files, printed as they are made."""
    subnet, variables = ofa_jax.load_subnet(directory)
    steps = card.preprocessing
    images = np.asarray(normalize_images(jnp.asarray(pixels), steps.mean, steps.std))
    apply = jax.jit(subnet.apply)
    own = in_batches(lambda x: np.asarray(apply(variables, x)), BATCH)(images)
    top1 = np.mean(own.argmax(-1) == labels)
    print(f"{card.name}: {card.macs / 1e6:.2f}M MACs, {len(labels)} images, top-1 {top1:.2%}")
    rows = []
    for form, made in card.exports.items():
        call = in_batches(load_export(directory, form, card), made.batch or BATCH)
        logits = call(pixels if made.input.startswith("uint8") else images)
        rows.append(row(card.name, form, logits, own, labels, made.bytes))
    return rows


def row(
    subnet: str, form: str, logits: np.ndarray, own: np.ndarray, labels: np.ndarray, size: int
) -> dict[str, Any]:
    """The figures of a file's logits, beside the subnet's own."""
    found = {
        "subnet": subnet, "format": form, "bytes": size, "images": len(labels),
        "db": snr(logits, own), "top1": float(np.mean(logits.argmax(-1) == labels)),
        "differs": float(np.mean(logits.argmax(-1) != own.argmax(-1))),
    }  # fmt: skip
    print(f"  {form:12} {size / 1e6:.3f} MB  {found['db']:6.1f} dB  top-1 {found['top1']:.2%}"
          f"  another class for {found['differs']:.2%}", flush=True)  # fmt: skip
    return found


if __name__ == "__main__":
    main()
