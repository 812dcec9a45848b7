"""The reference of every configuration field, written from the dataclasses of `Config`.

    python -m ofa_jax.run.config_reference > docs/configuration.md

Types and defaults are the dataclasses' own. What a field means is said once, in the docstring of
its dataclass under "Attributes:", as "name: meaning. Source: where the default is from."; a
default without a source is ours.
"""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from ofa_jax.run.config import Config

HEADS = ("field", "type", "default", "meaning", "source")
INTRO = """\
<!-- Of `python -m ofa_jax.run.config_reference > docs/configuration.md`: change docstrings. -->

# Configuration

An experiment is a file of `configs/`. What it does not set has its default, and the command line
sets any field on top of it, as `--config.` and the field:

```bash
python main.py --config=configs/digits.py --workdir=runs/longer --config.train.ema=0.999 \\
    --config.phases.oneshot.epochs=40 --config.search.constraints='(1.5e6, 3e6)'
```

A file of your own says what differs from the defaults:

```python
from ofa_jax.run.config import defaults


def get_config():
    full = {"kernels": (7,), "expands": (6,), "depths": (3,), "distill": 0.0, "epochs": 15}
    return defaults(data={"batch_size": 32}, curriculum=("full",), phases={"full": full})
```

A field that does not exist, or has a wrong type or value, is named before any data is read.
The workdir's `config.json` holds every field of its run.

Source is where a default is from: the paper (Cai et al. 2020, arXiv 1908.09791), the reference
(its authors' code, github.com/mit-han-lab/once-for-all) or ours."""


def reference() -> str:
    """Every field of `Config` and of the groups in it, as Markdown."""
    sections = (_section(path, kind) for path, kind in groups(Config))
    return "\n\n".join((INTRO, *sections)) + "\n"


def groups(kind: type, path: str = "") -> Iterator[tuple[str, type]]:
    """A dataclass and then the groups of fields in it, each with its path."""
    yield path, kind
    for name, hint in typing.get_type_hints(kind).items():
        inner = _group(name, hint)
        if inner:
            yield from groups(inner[1], _join(path, inner[0]))


def meanings(kind: type) -> dict[str, str]:
    """What each field of a dataclass means, by its docstring.

    Raises:
      ValueError: a field that has no entry or several, or an entry that names no field.
    """
    _, _, section = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
    _, *parts = re.split(r"^(\w+): ", textwrap.dedent(section), flags=re.MULTILINE)
    entries = parts[::2]
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in (*fields, *entries):
        if name not in fields:
            raise ValueError(f"{kind.__name__}: the entry {name!r} of Attributes names no field")
        if entries.count(name) != 1:
            raise ValueError(
                f"{kind.__name__}.{name} has {entries.count(name)} entries under Attributes:"
                " expected 1"
            )
    return {name: " ".join(text.split()) for name, text in zip(entries, parts[1::2], strict=True)}


def _section(path: str, kind: type) -> str:
    head, _, _ = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
    rows = [HEADS, ("---",) * len(HEADS), *_rows(path, kind)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {path or 'The run'}\n\n{head}\n\n{table}"


def _rows(path: str, kind: type) -> Iterator[tuple[str, ...]]:
    descriptions, hints = meanings(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        full = _join(path, field.name)
        meaning, _, source = descriptions[field.name].partition(" Source: ")
        inner = _group(full, hints[field.name])
        if inner:
            yield f"`{full}`", f"[group](#{_anchor(inner[0])})", "", meaning, ""
        else:
            type_, default = _type_name(hints[field.name]), _default(field)
            yield f"`{full}`", f"`{type_}`", f"`{default}`", meaning, source.rstrip(".") or "ours"


def _group(name: str, hint: Any) -> tuple[str, type] | None:
    """Path and dataclass of a field that is a group, or a dict of groups; None of any other."""
    if typing.get_origin(hint) is dict:
        name, hint = f"{name}.NAME", typing.get_args(hint)[1]
    return (name, hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _anchor(heading: str) -> str:
    """The link that GitHub makes of a heading."""
    return heading.lower().replace(".", "")


def _type_name(hint: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) else re.sub(r"\w+\.", "", str(hint))
    return name.replace("|", r"\|")  # a bar would end the table's cell


def _default(field: dataclasses.Field[Any]) -> str:
    return repr(field.default).replace("'", '"')  # as configs are written


if __name__ == "__main__":
    print(reference(), end="")
