"""Confusion matrices as tables: what an image is, and what a model said, a mean over the label draws."""

from __future__ import annotations

import pandas as pd

from medssl.report import html
from medssl.report.html import Markup
from medssl.report.shown import by_mode, largest_budget, modes_of

COLUMNS = {
    "arm": "the arm",
    "mode": "how it was trained",
    "budget": "label of the budget",
    "target": "the output of a binary or multi-label task; else `class`",
    "truth": "the true class",
    "called": "the class that was called",
    "images": "test images, mean over draws and runs",
    "share": "of the images of that true class; empty where there are none",
}
MOST_TARGETS = 4


def section(table: pd.DataFrame | None, comparison: pd.DataFrame) -> Markup:
    """A matrix an arm and target for each mode, at the largest budget; empty without a table.

    `table` is that of `evaluation.confusion.confusion_table`. Of many targets the first MOST_TARGETS are shown, and it is said.
    """
    if table is None or table.empty:
        return Markup("")
    parts = [
        html.paragraph(
            "Rows: what the image is. Columns: what the model says. A cell: images (mean over the label draws) and their share of "
            "the row, which the shade shows too."
        )
    ]
    targets = list(dict.fromkeys(table["target"]))
    if len(targets) > MOST_TARGETS:
        note = f"The first {MOST_TARGETS} of {len(targets)} targets are shown; the table of all lies beside this page."
        parts.append(html.paragraph(note, "note"))
    table = table[table["target"].isin(targets[:MOST_TARGETS])]
    shown = {}
    for mode in modes_of(table):
        rows = table[table["mode"] == mode]
        budget = largest_budget(rows, comparison)
        blocks = rows[rows["budget"] == budget].groupby(["target", "arm"], sort=False)
        matrices = [matrix(own, arm if len(targets) == 1 else f"{arm}: {target}") for (target, arm), own in blocks]
        shown[mode] = html.joined(html.paragraph(f"Budget {budget}.", "note"), html.panels(matrices, narrow=True))
    return html.section("Confusion matrices", *parts, by_mode(shown))


def matrix(rows: pd.DataFrame, title: str) -> Markup:
    """One matrix as a table, each cell shaded by its share of its row. `rows` are those of one arm, mode, budget and target."""
    names = list(dict.fromkeys(rows["truth"]))
    cells = {(row["truth"], row["called"]): row for row in rows.to_dict("records")}
    head = "".join(f'<th scope="col" class="number">{html.text(name)}</th>' for name in names)
    lines = []
    for truth in names:
        own = "".join(_cell(cells[truth, called]) for called in names)
        lines.append(f'<tr><th scope="row">{html.text(truth)}</th>{own}</tr>')
    head = f'<thead><tr><th scope="col">is \\ said</th>{head}</tr></thead>'
    table = Markup(f'<table class="confusion">{head}<tbody>{"".join(lines)}</tbody></table>')
    return Markup(f"<div>{html.titled(title, table)}</div>")


def _cell(row: dict) -> str:
    known = row["share"] == row["share"]
    said, shade = (f"{row['share']:.0%}", round(100 * row["share"])) if known else ("none", 0)
    kind = "right" if row["truth"] == row["called"] else "wrong"
    return f'<td class="number {kind}" style="--share:{shade}">{_count(row["images"])}<small>{said}</small></td>'


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"
