"""The extracted subnets: pictures, facts, files and latency."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ofa_jax.families import get_space
from ofa_jax.run.metrics import counted
from ofa_jax.run.report.nets import draw_net
from ofa_jax.run.report.page import (
    NOT_YET,
    facts,
    figure,
    folded,
    millions,
    paragraph,
    percent,
    spoken,
    table,
)
from ofa_jax.run.report.read import FAULTS, Row, RunFiles
from ofa_jax.run.report.template import Markup, filled, joined
from ofa_jax.run.report.training import learning_curve
from ofa_jax.space import SearchSpace

SUBNET = """\
<section class="subnet"><h3>{{ name }}</h3>\
<div class="pair"><div>{{ picture }}</div><div>{{ facts }}</div></div>\
{{ learning }}{{ exports }}{{ latency }}</section>"""
PAIR = '<div class="pair">{{ inner }}</div>'


def subnets(run: RunFiles, workdir: Path) -> Markup:
    """Every extracted subnet: its picture, facts, files and latency."""
    if not run.cards:
        return NOT_YET
    explanation = (
        "A row is a stage. The bold number of a block, and its shade, is its kernel; the number"
        " below, and its width, its expand ratio; dashed blocks are skipped."
    )
    sections = [_guarded(f"subnet {card.get('name')}", _subnet, run, card) for card in run.cards]
    return joined([paragraph(explanation, "soft"), *sections])


def _guarded(what: str, draw: Any, *args: Any) -> Markup:
    try:
        return draw(*args)
    except FAULTS as error:
        return paragraph(f"{what} cannot be shown: {error!r}", "soft")


def _subnet(run: RunFiles, card: Row) -> Markup:
    space, name = _space_of(run, str(card["space"])), str(card["name"])
    return filled(
        SUBNET,
        name=name,
        picture=figure(draw_net(space, card["arch"], name), "Blocks by stage", scrolls=True),
        facts=facts(_facts(card)),
        learning=_learning(run, name),
        exports=_exports(card),
        latency=_latency(card),
    )


def _space_of(run: RunFiles, name: str) -> SearchSpace:
    return run.space if run.space and run.space.name == name else get_space(name)


def _facts(card: Row) -> Iterable[tuple[str, str]]:
    for split, figures in card.get("accuracy", {}).items():
        yield f"top-1, {spoken(split)}", percent(figures["top1"])
    tuned = card.get("finetuned")
    if tuned:
        yield (
            "fine-tuned",
            f"from {tuned['from']}, {counted(tuned['epochs'], 'epoch')}, rate {tuned['lr']:g}",
        )
        for split, figures in tuned["before"].items():
            after = tuned["after"][split]["top1"]
            change = f"{figures['top1']:.2%} before, {after:.2%} after"
            yield f"fine-tuning, {spoken(split)}", change
    yield "MACs", millions(card["macs"])
    yield "parameters", millions(card["params"], 3)
    yield "resolution", f"{card['resolution']} px"


def _learning(run: RunFiles, name: str) -> Markup:
    """The curves of its fine-tuning."""
    steps = run.tuned[name].steps if name in run.tuned else []
    if not steps:
        return Markup("")
    plots = joined(learning_curve(steps, name) for name in ("loss", "accuracy"))
    return folded("Fine-tuning", filled(PAIR, inner=plots))


def _exports(card: Row) -> Markup:
    rows = [
        (name, e["file"], f"{e['bytes'] / 1e6:.2f} MB", e["input"],
         percent(e["accuracy"]["top1"]) if e.get("accuracy") else "as the subnet",
         f"{e['difference']:.1e}")
        for name, e in card.get("exports", {}).items()
    ]  # fmt: skip
    heads = ("format", "file", "size", "images", "top-1", "largest difference")
    return table(heads, rows, "Exported files") if rows else Markup("")


def _latency(card: Row) -> Markup:
    rows = [
        (row["runtime"], row["batch"], row["threads"], f"{row['median_ms']:.3f}",
         f"{row['p90_ms']:.3f}")
        for row in card.get("latency", ())
    ]  # fmt: skip
    if not rows:
        return Markup("")
    machine = ", ".join(f"{key} {value}" for key, value in card.get("machine", {}).items())
    heads = ("runtime", "batch", "threads", "median ms", "90 % within ms")
    return folded(f"Latency, {len(rows)} measurements", table(heads, rows, f"On {machine}"))
