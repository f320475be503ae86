"""Pieces of Markdown: everything that comes from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def plain(value: str) -> str:
    """Text from outside, on one line, with nothing left that Markdown or HTML would read as more than text."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def bullets(items: Iterable[str]) -> str:
    """A list of texts, which are escaped."""
    return "\n".join(f"- {plain(item)}" for item in items)


def line(cells: Iterable[str]) -> str:
    """A row of a table; cells are not escaped."""
    return f"| {' | '.join(cells)} |"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table; `numbers` are the columns to align right. Cells are not escaped."""
    right = set(numbers)
    rule = ["---:" if i in right else "---" for i in range(len(headings))]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def pairs(rows: Mapping[str, str]) -> str:
    """A table of names and values, which are escaped."""
    return table(("", ""), [(plain(name), plain(value)) for name, value in rows.items()])
