"""What a run has left in its workdir so far; whatever is missing or half written is left out."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ofa_jax.checkpoint import load_space
from ofa_jax.errors import InputError
from ofa_jax.files import parse_json, read_object
from ofa_jax.names import printable
from ofa_jax.run.config import from_dict
from ofa_jax.space import SearchSpace
from ofa_jax.storage import absolute

Row = dict[str, Any]
POINTS = 400  # of a curve: more look the same
FAULTS = (ValueError, KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError)
CURVES = ("loss", "accuracy", "learning_rate")


class Step(NamedTuple):
    """One training step, or the mean of `weight` neighbours of the same phase."""

    first: float
    last: float
    phase: str
    values: tuple[float, ...]  # in the order of CURVES
    weight: int = 1

    @property
    def middle(self) -> float:
        """Where it lies on a curve."""
        return (self.first + self.last) / 2


class Log(NamedTuple):
    """A file of metrics: the training steps, thinned, and the rows of two other groups."""

    steps: list[Step]
    ends: list[Row]
    held_out: list[Row]


class RunFiles(NamedTuple):
    """A workdir's files as plain data.

    Attributes:
      name: of the workdir.
      config: `config.json`.
      steps: the training steps of `metrics.jsonl`, thinned.
      phases: name, first and last step of each phase that has begun, in the order of their steps.
      ends: its rows of group "phase".
      held_out: its rows of group "held_out".
      tuned: what each fine-tuning has logged, by the subnet's name.
      evaluation, found, front: the files of these names; {} where there is none, or where the front
        is of another search than what was found.
      measured: the subnets that the search's predictor learnt from.
      cards: of the extracted subnets.
      space: the trained supernet's, or else the config's, whose classes are not known.
      classes_known: whether `space` has the dataset's number of classes.
    """

    name: str
    config: Row
    steps: list[Step]
    phases: list[tuple[str, float, float]]
    ends: list[Row]
    held_out: list[Row]
    tuned: dict[str, Log]
    evaluation: Row
    found: Row
    front: Row
    measured: list[Row]
    cards: list[Row]
    space: SearchSpace | None
    classes_known: bool

    @property
    def curriculum(self) -> list[str]:
        """The names of the phases: the config's, or those seen."""
        named = self.config.get("curriculum")
        seen = dict.fromkeys(
            [*(s.phase for s in self.steps), *(str(r["phase"]) for r in self.ends)]
        )
        return [str(name) for name in named] if isinstance(named, list) and named else list(seen)


def read_run(workdir: Path) -> RunFiles:
    """Reads whatever files a workdir has."""
    log = _metrics(workdir / "metrics.jsonl")
    tuned = sorted((workdir / "finetune").glob("*/metrics.jsonl"))
    config = _object(workdir / "config.json")
    trained = _trained_space(workdir)
    found, front = (_object(workdir / "search" / f"{name}.json") for name in ("found", "front"))
    if any(front.get(key) != found.get(key) for key in ("cost", "predictor")):
        front = {}  # of a search before
    cards = [_object(path) for path in sorted((workdir / "subnets").glob("*/card.json"))]
    return RunFiles(
        name=printable(absolute(workdir).name),
        config=config,
        steps=log.steps,
        phases=phases_of(log.steps),
        ends=log.ends,
        held_out=log.held_out,
        tuned={path.parent.name: _metrics(path) for path in tuned},
        evaluation=_object(workdir / "evaluation.json"),
        found=found,
        front=front,
        measured=[
            row
            for row in _lines(workdir / "search" / "measured.jsonl")
            if {"arch", "resolution", "top1"} <= row.keys()
        ],
        cards=[card for card in cards if card],
        space=trained or _configured_space(config),
        classes_known=trained is not None,
    )


def phases_of(steps: Iterable[Step]) -> list[tuple[str, float, float]]:
    """The name, first and last step of each phase."""
    spans: dict[str, tuple[float, float]] = {}
    for step in steps:
        first, _ = spans.get(step.phase, (step.first, step.last))
        spans[step.phase] = (first, step.last)
    return [(name, *span) for name, span in spans.items()]


def thinned(steps: Iterable[Step], points: int = POINTS) -> list[Step]:
    """At most so many points: means over neighbouring steps, never over two phases.

    Long runs have a million steps: never are more than twice the points held.
    """
    kept: list[Step] = []
    size = 1
    for step in steps:
        _append(kept, step, size)
        if len(kept) > 2 * points:
            size *= 2
            kept = _joined(kept, size)
    while len(kept) > points:
        size *= 2
        fewer = _joined(kept, size)
        if len(fewer) == len(kept):  # nothing but phases of one step
            break
        kept = fewer
    return kept


def _joined(steps: Iterable[Step], size: int) -> list[Step]:
    joined: list[Step] = []
    for step in steps:
        _append(joined, step, size)
    return joined


def _append(kept: list[Step], step: Step, size: int) -> None:
    """Adds a step, to the one before if that is of its phase and the two are at most `size`."""
    if not kept or kept[-1].phase != step.phase or kept[-1].weight + step.weight > size:
        kept.append(step)
        return
    before, weight = kept[-1], kept[-1].weight + step.weight
    values = tuple(
        (a * before.weight + b * step.weight) / weight
        for a, b in zip(before.values, step.values, strict=True)
    )
    kept[-1] = Step(before.first, step.last, step.phase, values, weight)


def _metrics(path: Path) -> Log:
    groups: dict[str, list[Row]] = {"phase": [], "held_out": []}
    steps = thinned(_steps(_lines(path), groups))
    return Log(steps, groups["phase"], [row for row in groups["held_out"] if top1_of(row)])


def _steps(rows: Iterable[Row], groups: dict[str, list[Row]]) -> Iterator[Step]:
    """The training steps; by the way, rows of the other groups are put where they belong."""
    for row in rows:
        if not ({"step", "phase"} <= row.keys() and finite(row["step"])):
            continue
        if row.get("group") == "train" and all(finite(row.get(name)) for name in CURVES):
            values = tuple(float(row[name]) for name in CURVES)
            yield Step(row["step"], row["step"], str(row["phase"]), values)
        elif str(row.get("group")) in groups:
            groups[str(row["group"])].append(row)


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def top1_of(row: Row) -> dict[str, float]:
    """The subnets' accuracy of a "held_out" row, by "name_pixels"."""
    named = {key.removeprefix("top1/"): v for key, v in row.items() if key.startswith("top1/")}
    return {name: value for name, value in named.items() if finite(value)}


def _lines(path: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines; a killed run may leave half a line."""
    if not path.is_file():
        return
    with path.open("rb") as file:  # a line after the other: long runs have a million
        for line in file:
            try:
                row = parse_json(line.decode())
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _object(path: Path) -> Row:
    try:
        return read_object(path)
    except InputError:
        return {}


def _trained_space(workdir: Path) -> SearchSpace | None:
    try:
        return load_space(workdir / "supernet")
    except FAULTS:
        return None


def _configured_space(config: Row) -> SearchSpace | None:
    try:
        checked = from_dict(config)
        return checked.search_space(checked.space.num_classes or 2)
    except FAULTS:
        return None
