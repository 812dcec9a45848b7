"""The page's frame: tables, figures and how everything looks."""

from collections.abc import Iterable, Sequence
from typing import Any

from ofa_jax.run.report.template import Markup, filled

NOT_YET = Markup('<p class="soft">Nothing yet.</p>')
STYLE = Markup("""
:root { color-scheme: light dark;
  --page: #fcfcfb; --card: #ffffff; --ink: #1b232d; --soft: #56616e; --line: #dfe3e8;
  --band: #eef1f5; --one: #1f5fa8; --two: #b3402a; --three: #1d7a5a;
  --low: #f4f7fb; --high: #8db9ea; }
@media screen and (prefers-color-scheme: dark) { :root {
  --page: #12161b; --card: #191f26; --ink: #e6eaef; --soft: #a0abb8; --line: #323b46;
  --band: #20272f; --one: #7db4f0; --two: #f0937c; --three: #6fcaa5;
  --low: #1c242d; --high: #2c5f99; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption, .caption { color: var(--soft); font-size: .9rem; }
.done { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; padding: 0; margin: .9rem 0; }
.done li { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .7rem;
  font-size: .88rem; color: var(--soft); }
.done .yes { color: var(--ink); border-color: var(--three); }
.done .yes::before { content: "\\2713\\00a0"; color: var(--three); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1.1rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .6rem .8rem; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles dd + dd { color: var(--soft); font-size: .82rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: .5rem 1.5rem; align-items: start; }
.pair > * { min-width: 0; }
figure { margin: .8rem 0; }
figcaption { margin-bottom: .2rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; }
svg .strong { fill: var(--ink); font-weight: 600; } svg .ink { fill: var(--ink); }
svg .letter { paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
svg .band { fill: var(--band); } svg .line { stroke: var(--line); }
svg .curve { fill: none; stroke: var(--one); stroke-width: 1.6; stroke-linejoin: round; }
svg .curve.two { stroke: var(--two); } svg .curve.three { stroke: var(--three); }
svg .dot { fill: var(--one); fill-opacity: .75; } svg .ring { fill: none; stroke: var(--three);
  stroke-width: 1.5; }
svg .star { fill: var(--two); stroke: var(--card); }
svg .hover { fill: transparent; }
svg .block { stroke: var(--one); stroke-width: 1.2;
  fill: color-mix(in srgb, var(--low), var(--high) calc(var(--v) * 100%)); }
svg .skipped { fill: none; stroke: var(--soft); stroke-dasharray: 4 3; }
.box { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
.caption { margin: 1.1rem 0 -.4rem; }
th, td { text-align: right; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, .words { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
.facts td { white-space: normal; text-align: left; }
.heat { border-collapse: separate; border-spacing: 3px; width: 100%;
  max-width: 42rem; min-width: 19rem; table-layout: fixed; }
.heat th, .heat td { border: 0; padding: .35rem .6rem; }
.heat td { text-align: center; border-radius: .35rem; color: var(--ink);
  background: color-mix(in srgb, var(--low), var(--high) calc(var(--v) * 100%)); }
.heat td:empty { background: none; }
.heat th:first-child { padding-left: 0; width: 11rem; white-space: normal; }
.heat thead th { text-align: center; } .heat small { display: block; }
.heat .best { outline: 2px solid var(--ink); outline-offset: -2px; }
.meter { display: inline-block; height: .6rem; background: var(--one); border-radius: .15rem;
  min-width: 1px; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0;
  margin: .3rem 0; font-size: .88rem; color: var(--soft); }
.key .one { color: var(--one); } .key .two { color: var(--two); }
.key .three { color: var(--three); }
.subnet { border: 1px solid var(--line); border-radius: .6rem; background: var(--card);
  padding: .2rem 1rem .6rem; margin: 1rem 0; }
.subnet h3 { margin-top: .8rem; }
.subnet svg { max-width: 30rem; }
.wide { max-width: 48rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--band); padding: .8rem; border-radius: .4rem;
  font-size: .82rem; line-height: 1.4; }
@media (max-width: 600px) {
  body { font-size: 15px; }
  .chart text { font-size: 16px; }
  .wide text { font-size: 21px; }
  .heat th:first-child { width: 6.6rem; } .heat th, .heat td { padding: .35rem .3rem; } }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .box, pre { overflow: visible; } pre { white-space: pre-wrap; }
  h2, h3 { break-after: avoid; } figure, .subnet, table { break-inside: avoid; } }
""")
DOCUMENT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{# An empty icon of its own: browsers ask for one otherwise. -#}
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
{% for part in body if part %}{{ part }}
{% endfor %}</main>
</body>
</html>
"""
BOX = """\
{% if caption %}<p class="caption">{{ caption }}</p>{% endif %}\
<div class="box" tabindex="0" role="region" aria-label="{{ caption or name }}">{{ inner }}</div>"""
TABLE = """\
<table><thead><tr>\
{% for head, word in heads %}<th scope="col"{% if word %} class="words"{% endif %}>{{ head }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr><th scope="row">{{ row[0] }}</th>\
{% for cell in row[1:] %}<td{% if words[loop.index] %} class="words"{% endif %}>{{ cell }}</td>\
{% endfor %}</tr>
{% endfor %}</tbody></table>"""
FACTS = """\
<table class="facts"><tbody>
{% for name, value in rows %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>"""


def document(title: str, body: Iterable[Markup]) -> str:
    """The whole document."""
    return filled(DOCUMENT, title=title, style=STYLE, body=body)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Markup:
    """A table that scrolls in its own box.

    Columns of numbers are set to the right, the first one and those of words to the left.
    """
    rows = [tuple(row) for row in rows]
    words = [any(map(_is_word, column)) for column in zip(*rows, strict=True)]
    headings = list(zip(heads, words, strict=True))
    return _box(filled(TABLE, heads=headings, rows=rows, words=words), caption)


def facts(rows: Iterable[Sequence[Any]], caption: str = "") -> Markup:
    """A table of names and what they are."""
    return _box(filled(FACTS, rows=rows), caption)


def _box(inner: Markup, caption: str, name: str = "Table") -> Markup:
    # The caption stays while the table scrolls: by touch or, as it has a tab stop, by keys.
    return filled(BOX, inner=inner, caption=caption, name=name)


def _is_word(cell: Any) -> bool:
    return isinstance(cell, Markup) or (isinstance(cell, str) and cell[:1] not in "0123456789-")


def figure(picture: Markup, caption: str, scrolls: bool = False) -> Markup:
    """A picture under its caption; one that may be too wide for a phone `scrolls`."""
    inner = _box(picture, "", caption) if scrolls else picture
    return filled(
        "<figure><figcaption>{{ caption }}</figcaption>{{ inner }}</figure>",
        caption=caption,
        inner=inner,
    )


def folded(summary: str, inner: Markup) -> Markup:
    """What is seen when its summary is opened."""
    return filled(
        "<details><summary>{{ summary }}</summary>{{ inner }}</details>",
        summary=summary,
        inner=inner,
    )


def paragraph(text: str, style: str = "") -> Markup:
    """A paragraph."""
    return filled(
        '<p{% if style %} class="{{ style }}"{% endif %}>{{ text }}</p>', text=text, style=style
    )


def percent(value: float) -> str:
    """A share as people read it."""
    return f"{value:.2%}"


def axis_percent(value: float) -> str:
    """A share at an axis, with the decimals that it needs."""
    return f"{100 * value:.5g}%"


def spoken(name: str) -> str:
    """A split's name as people say it."""
    return name.replace("_", " ")


def millions(value: float, digits: int = 2) -> str:
    """A number in millions."""
    return f"{value / 1e6:,.{digits}f} M"
