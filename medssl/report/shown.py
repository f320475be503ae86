"""What of a large comparison is drawn: the order of modes, and the budget that figures of one budget show."""

from __future__ import annotations

import pandas as pd

from medssl.modes import MODES


def mode_name(mode: str) -> str:
    """The name of a mode on pages, as in `medssl.modes.MODES`; a mode that is not there keeps its own."""
    return MODES.get(mode, mode)


def modes_of(table: pd.DataFrame) -> list[str]:
    """The modes of a table, in the order of `medssl.modes.MODES`, unknown ones last."""
    order = list(MODES)
    found = list(dict.fromkeys(table["mode"]))
    return sorted(found, key=lambda mode: order.index(mode) if mode in order else len(order))


def largest_budget(rows: pd.DataFrame, comparison: pd.DataFrame) -> str:
    """The budget of `rows` with the most labelled patients: what figures show that would be too many for every budget.

    Args:
        rows: of one mode, with a column `budget`.
        comparison: the table that knows how many patients a budget has.
    """
    sizes = comparison.drop_duplicates("budget").set_index("budget")["budget_patients"].to_dict()
    return max(dict.fromkeys(rows["budget"]), key=lambda budget: sizes.get(budget, -1))
