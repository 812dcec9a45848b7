"""What the run is, how far it has come, and its best figures."""

from pathlib import Path

from ofa_jax.run.report.page import millions, percent, spoken
from ofa_jax.run.report.read import RunFiles, top1_of
from ofa_jax.run.report.template import Markup, filled

SUMMARY = """\
<h1>{{ name }}</h1>
<p>{{ line }}</p>
<ul class="done" aria-label="Steps of the run">\
{% for name, done in steps %}\
<li class="{{ 'yes' if done else 'no' }}">{{ name }}{% if not done %}: not yet{% endif %}</li>\
{% endfor %}</ul>
{% if tiles %}<dl class="tiles">\
{% for name, value, note in tiles %}\
<div><dt>{{ name }}</dt><dd>{{ value }}</dd><dd>{{ note }}</dd></div>\
{% endfor %}</dl>{% endif %}"""


def summary(run: RunFiles, workdir: Path) -> Markup:
    """What the run is, how far it has come, and its best figures."""
    data = run.config.get("data", {}).get("name", "")
    space = run.config.get("space", {}).get("name") or run.evaluation.get("space", "")
    words = [text for text in (space, data and f"on {data}") if text]
    line = f"{' '.join(words)}: {state(run)}." if words else f"{state(run).capitalize()}."
    tiles = [*_grid_tiles(run), *_chosen_tile(run)]
    steps = list(progress(run).items())
    return filled(SUMMARY, name=run.name, line=line, steps=steps, tiles=tiles)


def progress(run: RunFiles) -> dict[str, bool]:
    """The steps of a run, and whether each is done."""
    ended = {row["phase"] for row in run.ends}
    done = {
        "trained": bool(run.curriculum) and ended >= set(run.curriculum),
        "evaluated": bool(run.evaluation),
        "searched": bool(run.found),
        "extracted": bool(run.cards),
    }
    if run.config.get("finetune", {}).get("epochs", 1):
        done["fine-tuned"] = any(card.get("finetuned") for card in run.cards)
    if run.config.get("export", {}).get("formats", [1]):
        done["exported"] = any(card.get("exports") for card in run.cards)
    return done


def state(run: RunFiles) -> str:
    """How far the run has come, in a few words."""
    done = progress(run)
    if all(done.values()):
        return "finished"
    if done["trained"]:
        return ", ".join(name for name, yes in done.items() if yes)
    ended, count = {row["phase"] for row in run.ends}, len(run.curriculum)
    if run.steps and run.steps[-1].phase not in ended:
        last = run.steps[-1]
        place = run.curriculum.index(last.phase) + 1 if last.phase in run.curriculum else "?"
        return f"training, phase {last.phase} ({place} of {count}) at step {last.last:,.0f}"
    return f"training, {len(ended)} of {count} phases done" if ended else "not begun"


def _grid_tiles(run: RunFiles) -> list[tuple[str, str, str]]:
    rows = run.evaluation.get("subnets") or []
    if not rows:
        return _held_out_tiles(run)
    tiles = []
    for name, pick in (("largest", max), ("smallest", min)):
        own = [row for row in rows if row["name"] == name]
        if own:
            row = pick(own, key=lambda row: row["resolution"])
            note = f"{row['split']}, {row['resolution']} px, {millions(row['macs'])} MACs"
            tiles.append((f"Top-1, {name} subnet", percent(row["top1"]), note))
    mean = sum(row["top1"] for row in rows) / len(rows)
    note = f"{rows[0]['split']}, {len(rows)} subnets of the grid"
    return [*tiles, ("Top-1, mean", percent(mean), note)]


def _held_out_tiles(run: RunFiles) -> list[tuple[str, str, str]]:
    if not run.held_out:
        return []
    row = run.held_out[-1]
    top1, note = top1_of(row), f"held out, after phase {row['phase']}"
    mean = sum(top1.values()) / len(top1)
    return [
        ("Top-1, best subnet", percent(max(top1.values())), note),
        ("Top-1, worst subnet", percent(min(top1.values())), note),
        ("Top-1, mean", percent(mean), f"{len(top1)} subnets, {note}"),
    ]


def _chosen_tile(run: RunFiles) -> list[tuple[str, str, str]]:
    """The search's middle winner, fine-tuned where it was."""
    rows = run.found.get("found") or []
    if not rows:
        return []
    row = rows[len(rows) // 2]
    cards = {card.get("name"): card for card in run.cards}
    for name in (f"{row['name']}-finetuned", row["name"]):
        for split in ("test", "held_out"):
            figures = cards.get(name, {}).get("accuracy", {}).get(split)
            if figures:
                note = f"{name}: {spoken(split)}, {millions(cards[name]['macs'])} MACs"
                return [("Top-1, chosen subnet", percent(figures["top1"]), note)]
    note = f"{row['name']}: held out, {millions(row['macs'])} MACs"
    return [("Top-1, chosen subnet", percent(row["held_out"]), note)]
