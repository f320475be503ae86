"""The comparison's numbers as HTML tables: the verdicts at a glance, and everything that was measured, family by family."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from medssl.evaluation.sentences import number
from medssl.evaluation.verdicts import verdict
from medssl.report import html
from medssl.report.figures import budget_name, named_arm
from medssl.report.html import Markup
from medssl.report.metrics import FAMILIES, Metric, metric_of, metrics_of, of_family, primary_of
from medssl.report.shown import by_mode, mode_name, modes_of
from medssl.report.table import blocks, difference

_VERDICTS = {"better": "▲ better", "worse": "▼ worse", "unclear": "cannot be told apart", "too few": "test set too small"}


def grid(comparison: pd.DataFrame, modes: Sequence[str]) -> Markup:
    """Arms down, label budgets across: better, worse or not told apart, with the paired difference of the primary metric.

    Several modes stand one below the other in one table, each under its name.
    """
    metric = metric_of(primary_of(comparison))
    rows = comparison[(comparison["metric"] == metric.name) & comparison["mode"].isin(modes)]
    others = rows[rows["arm"] != rows["reference"]]
    if others.empty:
        return Markup("")
    sizes = others.drop_duplicates("budget").sort_values("budget_patients", kind="stable").to_dict("records")
    budgets = {row["budget"]: f"{budget_name(row)} labelled patients" for row in sizes}
    lines = []
    for mode in modes:
        if len(modes) > 1:
            above = f'<th colspan="{len(budgets) + 1}" scope="colgroup">{html.text(mode_name(mode))}</th>'
            lines.append(f'<tr class="group">{above}</tr>')
        for arm, own in others[others["mode"] == mode].groupby("arm", sort=False):
            by_budget = {row["budget"]: row for row in own.to_dict("records")}
            cells = [_verdict_cell(by_budget.get(budget)) for budget in budgets]
            lines.append(f'<tr><th scope="row">{named_arm(comparison, arm)}</th>{"".join(cells)}</tr>')
    reference, level = rows["reference"].iloc[0], f"{rows['level'].iloc[0]:.0%}"
    lower = "; lower is better" if metric.lower_is_better else ""
    caption = f"{metric.start} minus that of {reference} on the same patients and label draws, {level} interval{lower}"
    head = "".join(f'<th scope="col">{html.text(heading)}</th>' for heading in ["arm", *budgets.values()])
    table = f'<table class="grid"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return html.titled(caption, Markup(table))


def _verdict_cell(row: dict | None) -> str:
    if row is None:
        return "<td>–</td>"
    kind = verdict(row)
    said = html.text(difference(row).replace("-", "−"))
    return f'<td class="{kind.split()[-1]}"><strong>{_VERDICTS[kind]}</strong><small>{said}</small></td>'


def section(comparison: pd.DataFrame) -> Markup:
    """For each mode the primary metric with differences and all others, a table a family; then single targets."""
    level, reference = f"{comparison['level'].iloc[0]:.0%}", comparison["reference"].iloc[0]
    primary = metric_of(primary_of(comparison))
    shown = {}
    for mode in modes_of(comparison):
        rows = comparison[comparison["mode"] == mode]
        parts = []
        beside = [metric for metric in of_family(rows, primary.family) if metric.name != primary.name]
        parts.append(_table(comparison, rows, [primary, *beside], f"{primary.start}: {FAMILIES[primary.family]}", primary.name))
        for family, meaning in FAMILIES.items():
            own = [metric for metric in of_family(rows, family) if metric.name != primary.name]
            if family != primary.family and own:
                parts.append(_table(comparison, rows, own, meaning[0].upper() + meaning[1:]))
        singles: dict[str, list[Metric]] = {}
        for metric in metrics_of(rows):
            if metric.target:
                singles.setdefault(metric.name.partition("/")[0], []).append(metric)
        for base, own in singles.items():
            parts.append(_table(comparison, rows, own, f"{metric_of(base).title} of each target"))
        shown[mode] = html.joined(*parts)
    text = (
        f"Means over the label draws, and over pretraining runs where there are several, with {level} intervals. Differences are "
        f"paired, arm minus {reference}."
    )
    return html.section("All numbers", html.paragraph(text), by_mode(shown))


def _table(comparison: pd.DataFrame, rows: pd.DataFrame, metrics: list[Metric], caption: str, differing: str = "") -> Markup:
    """Values with intervals, a row an arm, budget by budget; the difference beside the metric named `differing`."""
    reference = rows["reference"].iloc[0]
    lines: list[tuple[str, ...]] = []
    for block in blocks(rows):
        row = next(iter(block[0][1].values()))
        draws = f"{row['n_seeds']} label draw{'s' if row['n_seeds'] > 1 else ''}"
        lines.append((f"{budget_name(row)} labelled patients, {row['budget_images']} images, {draws}",))
        for arm, found in block:
            cells: list[str] = [named_arm(comparison, arm)]
            for metric in metrics:
                cells.append(_value(found.get(metric.name)))
                if metric.name == differing:
                    cells.append(_difference(found[metric.name]))
            lines.append(tuple(cells))
    headings = ["arm"]
    for metric in metrics:
        name = metric.target or metric.title
        headings.append(f"{name} ↓" if metric.lower_is_better else name)
        headings += [f"minus {reference}"] if metric.name == differing else []
    lower = " ↓: lower is better." if any(metric.lower_is_better for metric in metrics) else ""
    return html.table(caption + "." + lower, headings, lines)


def _value(row: dict | None) -> Markup:
    if row is None:
        return Markup("–")
    if row["value"] != row["value"]:
        return Markup("<small>unknown</small>")
    return Markup(f"{number(row['value'])}<small>{number(row['lower'])} to {number(row['upper'])}</small>".replace("-", "−"))


def _difference(row: dict) -> Markup:
    if row["arm"] == row["reference"]:
        return Markup("<small>reference</small>")
    sign = "+" if row["difference"] > 0 else ""
    ends = f"{number(row['difference_lower'])} to {number(row['difference_upper'])}"
    return Markup(f"{sign}{number(row['difference'])}<small>{ends}</small>".replace("-", "−"))
