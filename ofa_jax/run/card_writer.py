"""A subnet's card is written: `card.json`, and the same for people as `README.md`."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ofa_jax.checkpoint import checksum
from ofa_jax.files import write_json, write_text
from ofa_jax.run import precision
from ofa_jax.run.card import CARD, README, Card
from ofa_jax.run.metrics import counted
from ofa_jax.storage import below


def write_card(directory: Path, card: Card, changed: Iterable[str] | None = None) -> None:
    """Writes card and README, with the checksums of all files or of the `changed` ones."""
    if changed is None:
        changed = [
            str(path.relative_to(directory))
            for path in below(directory)
            if path.name not in (CARD, README)
        ]
    files = {**card.files, **{name: checksum(directory / name) for name in changed}}
    card = dataclasses.replace(card, files=files)
    write_text(directory / README, rendered(card))
    write_json(directory / CARD, dataclasses.asdict(card))


RUN = {
    "jax": """\
import ofa_jax, jax
subnet, variables = ofa_jax.load_subnet(".")
logits = jax.jit(subnet.apply)(variables, images)""",
    "stablehlo": """\
from pathlib import Path

import jax
from jax import export
network = export.deserialize(bytearray(Path("{file}").read_bytes()))
logits = jax.jit(network.call)(images)""",
    "onnx": """\
import onnxruntime
session = onnxruntime.InferenceSession("{file}")
(logits,) = session.run(None, {{"images": images}})""",
    "tflite": """\
from ai_edge_litert.interpreter import Interpreter
net = Interpreter("{file}")
net.resize_tensor_input(net.get_input_details()[0]["index"], images.shape)
net.allocate_tensors()
net.set_tensor(net.get_input_details()[0]["index"], images)
net.invoke()
logits = net.get_tensor(net.get_output_details()[0]["index"])""",
}
RUN |= {"onnx-fp16": RUN["onnx"], "onnx-int8": RUN["onnx"]}
RUN |= {"tflite-fp16": RUN["tflite"], "tflite-int8": RUN["tflite"]}


def rendered(card: Card) -> str:
    """The card as Markdown."""
    blocks = (
        f"# {card.name}",
        f"A subnet of `{card.space}`, as a network of its own, by ofa_jax.",
        _table(("", ""), _facts(card)),
        "## Images",
        _images(card),
        "## Run it",
        *_commands(card),
        *_latencies(card),
        "## Classes",
        ", ".join(card.classes),
        "## Where it comes from",
        _table(("", ""), [(key, f"{value}") for key, value in _provenance(card).items()]),
    )
    return "\n\n".join(blocks) + "\n"


def _facts(card: Card) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(f"top-1, {split}", f"{figures['top1']:.2%}")
            for split, figures in card.accuracy.items()]  # fmt: skip
    for name, export in card.exports.items():
        if export.accuracy:
            rows.append((f"top-1, {name}", f"{export.accuracy['top1']:.2%}"))
    rows += [
        ("resolution", f"{card.resolution} px"),
        ("MACs", f"{card.macs / 1e6:,.2f} M"),
        ("parameters", f"{card.params / 1e6:,.3f} M"),
        ("arch", f"`{json.dumps(card.arch)}`"),
    ]
    return rows


def _images(card: Card) -> str:
    steps = card.preprocessing
    return (
        f"{steps.channels}; the shorter side resized to {steps.resize_shorter_side} px"
        f" ({steps.interpolation}), the central {card.resolution} x {card.resolution} px;"
        f" then `(pixels / 255 - mean) / std` with mean {list(steps.mean)} and std"
        f" {list(steps.std)}. `ofa_jax.load_subnet` and the files below that do not say uint8 take"
        " the result as float32."
    )


def _commands(card: Card) -> list[str]:
    blocks = [f"```python\n{RUN['jax']}\n```"]
    for name, export in card.exports.items():
        text = RUN[name].format(file=export.file)
        needs = f" ({export.runtime})" if export.runtime else ""
        caption = f"`{export.file}`, {export.bytes / 1e6:.2f} MB, images {export.input}{needs}:"
        blocks += [caption, f"```python\n{text}\n```"]
        if worth := precision.summary(card, name):
            blocks.append(worth)
    return blocks


def _latencies(card: Card) -> list[str]:
    if not card.latency:
        return []
    rows = [
        (row.runtime, str(row.batch), str(row.threads), f"{row.median_ms:.3f}", f"{row.p90_ms:.3f}")
        for row in card.latency
    ]
    heads = ("runtime", "batch", "threads", "median ms", "90 % within ms")
    machine = ", ".join(f"{key} {value}" for key, value in card.machine.items())
    return ["## Latency", f"On {machine}.", _table(heads, rows)]


def _provenance(card: Card) -> Mapping[str, Any]:
    provenance = {**card.source, "created": card.created}
    if card.finetuned:
        before, after = (card.finetuned[when]["held_out"]["top1"] for when in ("before", "after"))
        provenance["fine-tuned"] = (
            f"from {card.finetuned['from']}, {counted(card.finetuned['epochs'], 'epoch')}:"
            f" {before:.2%} to {after:.2%} on held-out images"
        )
    return provenance


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
