"""Confusion matrices as tables: what an image is, and what a model said, a mean over the label draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.report import html
from medssl.report.html import Markup
from medssl.report.shown import largest_budget, mode_name, modes_of


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of one arm, mode and budget.

    Attributes:
        names: of the K classes; of a binary task the negative one first.
        counts: (K, K) images, true classes down, predicted classes across; means over the label draws.
        output: the target, where a task has several, each with two classes; else empty.
    """

    arm: str
    mode: str
    budget: str
    names: tuple[str, ...]
    counts: np.ndarray
    output: str = ""

    def __post_init__(self) -> None:
        if self.counts.shape != (len(self.names), len(self.names)):
            raise ValueError(f"a confusion matrix of {len(self.names)} classes is square, not {self.counts.shape}")


def section(matrices: Sequence[Confusion], comparison: pd.DataFrame) -> Markup:
    """A matrix an arm (and target) for each mode, at the largest budget; empty without matrices."""
    if not matrices:
        return Markup("")
    keys = pd.DataFrame([{"mode": matrix.mode, "budget": matrix.budget} for matrix in matrices])
    parts = [
        html.paragraph(
            "Rows: what the image is. Columns: what the model says. A cell: images (mean over the label draws) and their share of "
            "the row, which the shade shows too."
        )
    ]
    for mode in modes_of(keys):
        budget = largest_budget(keys[keys["mode"] == mode], comparison)
        own = [matrix for matrix in matrices if (matrix.mode, matrix.budget) == (mode, budget)]
        parts.append(html.section(f"{mode_name(mode)}, budget {budget}", html.panels(map(matrix_html, own)), level=3))
    return html.section("Confusion matrices", *parts)


def matrix_html(matrix: Confusion) -> Markup:
    """One matrix as a table, each cell shaded by its share of its row."""
    totals = matrix.counts.sum(axis=1)
    head = "".join(f'<th scope="col" class="number">{html.text(name)}</th>' for name in matrix.names)
    lines = []
    for i, name in enumerate(matrix.names):
        cells = []
        for j, count in enumerate(matrix.counts[i]):
            share = count / totals[i] if totals[i] else float("nan")
            said = f"{share:.0%}" if totals[i] else "none"
            shade = f"{round(100 * share)}" if totals[i] else "0"
            kind = "right" if i == j else "wrong"
            cells.append(f'<td class="number {kind}" style="--share:{shade}">{_count(count)}<small>{said}</small></td>')
        lines.append(f'<tr><th scope="row">{html.text(name)}</th>{"".join(cells)}</tr>')
    title = matrix.arm + (f": {matrix.output}" if matrix.output else "")
    table = f'<table class="confusion"><thead><tr><th scope="col">is \\ said</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return Markup(f"<div>{html.titled(title, Markup(table))}</div>")


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"
