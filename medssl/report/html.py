"""The pieces of the page: everything that comes from outside is escaped here."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

_LINKED = re.compile(r'<section id="([^"]+)"><h2>(.*?)</h2>')


class Markup(str):
    """Text that is HTML already; every other text is escaped."""

    __slots__ = ()


class Row(NamedTuple):
    """A row of a table: a heading cell and its cells; `kind` is a CSS class."""

    cells: Sequence[str]
    kind: str = ""


def text(value: str) -> str:
    """`value` as HTML."""
    return value if isinstance(value, Markup) else escape(str(value))


def paragraph(value: str, kind: str = "") -> Markup:
    return Markup(f"<p{_class(kind)}>{text(value)}</p>")


def bullets(items: Iterable[str]) -> Markup:
    return Markup(f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>")


def section(heading: str, *parts: str, level: int = 2) -> Markup:
    """A heading and what stands below it; one of level 2 can be linked to, see `contents`."""
    place = f' id="{escape(_anchor(heading))}"' if level == 2 else ""
    return Markup(f"<section{place}><h{level}>{text(heading)}</h{level}>{''.join(map(text, parts))}</section>")


def contents(parts: Iterable[str], fewest: int = 9) -> Markup:
    """Links to the sections of level 2 among `parts`; empty where there are fewer than `fewest`."""
    found = [match for part in parts for match in _LINKED.findall(part)]
    if len(found) < fewest:
        return Markup("")
    links = "".join(f'<li><a href="#{place}">{heading}</a></li>' for place, heading in found)
    return Markup(f'<nav class="contents" aria-label="Contents"><h2>On this page</h2><ul>{links}</ul></nav>')


def breakable(name: str) -> Markup:
    """A name that may be wrapped after its underscores."""
    return Markup(text(name).replace("_", "_<wbr>"))


def joined(*parts: str) -> Markup:
    """Parts one after the other; `+` and `join` would make text of markup, which is escaped."""
    return Markup("".join(map(text, parts)))


def panels(figures: Iterable[str], *, named: bool = False, narrow: bool = False) -> Markup:
    """Figures side by side, as many as the window's width holds, `narrow` ones closer together.

    `named`: their captions are names, and stand above them.
    """
    kind = "panels" + (" named" if named else "") + (" narrow" if narrow else "")
    return Markup(f'<div class="{kind}">{"".join(map(text, figures))}</div>')


def details(summary: str, *parts: str, shown: bool = False) -> Markup:
    """What is shown when its summary is clicked on, without a script, and always on paper; `shown` from the start."""
    state = " open" if shown else ""
    return Markup(f"<details{state}><summary>{text(summary)}</summary>{''.join(map(text, parts))}</details>")


def table(
    caption: str, headings: Sequence[str], rows: Iterable[Row | Sequence[str]], numbers: Iterable[int] = (), kind: str = ""
) -> Markup:
    """A table in a wrapper that scrolls in a narrow window. `numbers` are the columns to align right.

    A row of one cell is a heading over the following rows.
    """
    numbers = set(numbers)

    def cell(column: int, value: str, tag: str) -> str:
        scope = ' scope="row"' if tag == "th" else ""
        return f"<{tag}{scope}{_class('number' if column in numbers else '')}>{text(value)}</{tag}>"

    body = []
    for row in rows:
        row = row if isinstance(row, Row) else Row(row)
        if len(row.cells) == 1 < len(headings):
            body.append(f'<tr class="group"><th colspan="{len(headings)}" scope="colgroup">{text(row.cells[0])}</th></tr>')
            continue
        cells = [cell(i, value, "th" if i == 0 else "td") for i, value in enumerate(row.cells)]
        body.append(f"<tr{_class(row.kind)}>{''.join(cells)}</tr>")
    head = "".join(
        f'<th scope="col"{_class("number" if i in numbers else "")}>{text(heading)}</th>' for i, heading in enumerate(headings)
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(headings) else ""
    return titled(caption, Markup(f"<table{_class(kind)}>{head}<tbody>{''.join(body)}</tbody></table>"))


def pairs(items: Mapping[str, str], code: bool = False) -> Markup:
    """A table of name and value; `code` prints the values as such."""
    rows = [(name, Markup(f"<code>{escape(value)}</code>") if code else value) for name, value in items.items()]
    return table("", ("", ""), rows, kind="facts")


def figure(drawing: str, caption: str) -> Markup:
    return Markup(f"<figure>{scroll(Markup(drawing), caption)}<figcaption>{text(caption)}</figcaption></figure>")


def image(drawing: str, label: str) -> Markup:
    """A standalone SVG as an image: its styles stay inside it."""
    data = base64.b64encode(drawing.encode()).decode()
    return Markup(f'<img class="drawing" alt="{escape(label)}" src="data:image/svg+xml;base64,{data}">')


def titled(title: str, content: Markup) -> Markup:
    """A scrolling wrapper below its title, which stays in view and wraps where the content scrolls."""
    above = paragraph(title, "title") if title else ""
    return Markup(f"{above}{scroll(content, title)}")


def scroll(content: Markup, label: str) -> Markup:
    """A wrapper that scrolls sideways, reachable by keyboard."""
    return Markup(f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label or "table")}">{content}</div>')


def _anchor(heading: str) -> str:
    """'linear-probe-all-numbers': letters and digits of a heading."""
    return "-".join(re.findall(r"[^\W_]+", heading.lower())) or "section"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""
