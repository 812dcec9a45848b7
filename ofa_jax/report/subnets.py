"""The extracted subnets: drawn, with their facts, files and latency."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from ofa_jax.metrics import counted
from ofa_jax.report.nets import draw_net
from ofa_jax.report.page import NOT_YET, facts, figure, millions, percent, spoken, table
from ofa_jax.report.read import FAULTS, Row, Run
from ofa_jax.report.training import learning_curve
from ofa_jax.space import SearchSpace
from ofa_jax.spaces import get_space


def subnets(run: Run, workdir: Path) -> str:
    """Every extracted subnet: drawn, with its facts, files and latency."""
    if not run.cards:
        return NOT_YET
    told = (
        '<p class="soft">A row is a stage. The bold number of a block, and its shade, is its'
        " kernel; the number below, and its width, its expand ratio; dashed blocks are skipped.</p>"
    )
    return told + "".join(_guarded(f"subnet {card.get('name')}", _subnet, run, card)
                          for card in run.cards)  # fmt: skip


def _guarded(what: str, draw: Any, *args: Any) -> str:
    try:
        return draw(*args)
    except FAULTS as error:
        return f'<p class="soft">{escape(what)} cannot be shown: {escape(repr(error))}</p>'


def _subnet(run: Run, card: Row) -> str:
    space = _space_of(run, str(card["space"]))
    picture = draw_net(space, card["arch"], str(card["name"]))
    left = f"<div>{figure(picture, 'Blocks by stage', scrolls=True)}</div>"
    right = f"<div>{facts(_facts(card))}</div>"
    return (
        f'<section class="subnet"><h3>{escape(str(card["name"]))}</h3>'
        f'<div class="pair">{left}{right}</div>{_learning(run, str(card["name"]))}'
        f"{_exports(card)}{_latency(card)}</section>"
    )


def _space_of(run: Run, name: str) -> SearchSpace:
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
            told = f"{figures['top1']:.2%} before, {after:.2%} after"
            yield f"fine-tuning, {spoken(split)}", told
    yield "MACs", millions(card["macs"])
    yield "parameters", millions(card["params"], 3)
    yield "resolution", f"{card['resolution']} px"


def _learning(run: Run, name: str) -> str:
    """The curves of its fine-tuning."""
    steps = run.tuned[name].steps if name in run.tuned else []
    if not steps:
        return ""
    drawn = "".join(learning_curve(steps, name) for name in ("loss", "accuracy"))
    return f'<details><summary>Fine-tuning</summary><div class="pair">{drawn}</div></details>'


def _exports(card: Row) -> str:
    rows = [
        (name, e["file"], f"{e['bytes'] / 1e6:.2f} MB", e["input"],
         percent(e["accuracy"]["top1"]) if e.get("accuracy") else "as the subnet",
         f"{e['difference']:.1e}")
        for name, e in card.get("exports", {}).items()
    ]  # fmt: skip
    heads = ("format", "file", "size", "images", "top-1", "largest difference")
    return table(heads, rows, "Exported files") if rows else ""


def _latency(card: Row) -> str:
    rows = [
        (row["runtime"], row["batch"], row["threads"], f"{row['median_ms']:.3f}",
         f"{row['p90_ms']:.3f}")
        for row in card.get("latency", ())
    ]  # fmt: skip
    if not rows:
        return ""
    machine = ", ".join(f"{key} {value}" for key, value in card.get("machine", {}).items())
    heads = ("runtime", "batch", "threads", "median ms", "90 % within ms")
    inner = table(heads, rows, f"On {machine}")
    return f"<details><summary>Latency, {len(rows)} measurements</summary>{inner}</details>"
