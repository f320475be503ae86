"""What of a large comparison is drawn: the order of modes, and the budget that figures of one budget show."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from medssl.modes import MODES
from medssl.report import html
from medssl.report.html import Markup

FEW_MODES = 2  # that a page shows in full, one below the other


def mode_name(mode: str) -> str:
    """The name of a mode on pages, as in `medssl.modes.MODES`; a mode that is not there keeps its own."""
    return MODES.get(mode, mode)


def modes_of(table: pd.DataFrame) -> list[str]:
    """The modes of a table, in the order of `medssl.modes.MODES`, unknown ones last."""
    order = list(MODES)
    found = list(dict.fromkeys(table["mode"]))
    return sorted(found, key=lambda mode: order.index(mode) if mode in order else len(order))


def by_mode(parts: Mapping[str, str]) -> Markup:
    """What there is of each mode below its name; of more than FEW_MODES the first is open and the others open on a click."""
    if len(parts) <= FEW_MODES:
        return Markup("".join(html.section(mode_name(mode), part, level=3) for mode, part in parts.items()))
    folded = (html.details(mode_name(mode), part, shown=i == 0) for i, (mode, part) in enumerate(parts.items()))
    return Markup(f'<div class="modes">{"".join(folded)}</div>')


def largest_budget(rows: pd.DataFrame, comparison: pd.DataFrame) -> str:
    """The budget of `rows` with the most labelled patients: what figures show that would be too many for every budget.

    Args:
        rows: of one mode, with a column `budget`.
        comparison: the table that knows how many patients a budget has.
    """
    sizes = comparison.drop_duplicates("budget").set_index("budget")["budget_patients"].to_dict()
    return max(dict.fromkeys(rows["budget"]), key=lambda budget: sizes.get(budget, -1))
