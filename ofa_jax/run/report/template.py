"""HTML and SVG by templates that escape whatever is not `Markup` itself."""

import functools
from collections.abc import Iterable
from typing import Any

import jinja2
from markupsafe import Markup

__all__ = ["Markup", "filled", "joined"]

ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)
compiled = functools.cache(ENVIRONMENT.from_string)


def filled(template: str, **values: Any) -> Markup:
    """A template with its values, of which text is escaped."""
    return Markup(compiled(template).render(values))


def joined(parts: Iterable[str]) -> Markup:
    """Parts one after the other; those that are no `Markup` are escaped."""
    return Markup("").join(parts)
