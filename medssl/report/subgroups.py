"""Subgroups of the test patients: their sizes, the metric in each with its interval, and the gap, as a figure and a table."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from medssl.evaluation.sentences import number
from medssl.report import html, svg
from medssl.report.figures import legend
from medssl.report.html import Markup
from medssl.report.metrics import metric_of
from medssl.report.shown import by_mode, largest_budget, mode_name, modes_of

COLUMNS = {
    "column": "what the groups are of, such as sex",
    "group": "the group; `unknown` where the column is empty",
    "arm": "the arm",
    "mode": "the mode of fine-tuning",
    "budget": "label of the budget",
    "patients": "test patients of the group",
    "images": "test images of the group",
    "positives": "positive test images of the group; NaN where the task has no positive class",
    "metric": "the metric",
    "value": "mean over the label draws in the group",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval",
    "gap": "value minus that of all other images, on the same models",
    "gap_lower": "lower end of the gap's interval",
    "gap_upper": "upper end of the gap's interval",
    "too_small": "whether a class has too few patients in the group: no metric is given then",
}
_WIDTH, _LEFT, _RIGHT = 840, 190, 810
_STEP = 13  # pixels between the arms of one group


def section(table: pd.DataFrame | None, comparison: pd.DataFrame) -> Markup:
    """A figure of the primary metric and a table for each mode and column, at the largest budget; empty without a table.

    `table` is that of `evaluation.subgroups.subgroups`; of its columns those of COLUMNS are read.
    """
    if table is None or table.empty:
        return Markup("")
    parts = [
        html.paragraph(
            "The metric in each group of test patients. A gap is the group minus all other test images. Groups are small, their "
            "intervals wide: a gap whose interval holds 0 is not shown to be there, and neither is it shown to be absent. Groups "
            "with too few patients of a class have no number. Nothing here is corrected for the number of groups."
        ),
        Markup(legend(comparison)),
    ]
    shown = {}
    for mode in modes_of(table):
        rows = table[table["mode"] == mode]
        budget = largest_budget(rows, comparison)
        rows = rows[rows["budget"] == budget]
        drawn = []
        for column in dict.fromkeys(rows["column"]):
            divided, name = rows[rows["column"] == column], str(column).replace("_", " ")
            primary, *others = [own for _, own in divided.groupby("metric", sort=False)]
            below = f"{_title(primary)} by {name}, budget {budget}, with intervals."
            drawn.append(html.figure(forest(primary, comparison, mode), below))
            drawn.append(_numbers(primary, f"{name}: sizes, {_title(primary)} and gaps"))
            if others:
                tables = (_numbers(own, f"{name}: {_title(own)} and gaps") for own in others)
                drawn.append(html.details(f"{name}: {', '.join(map(_title, others))}", *tables))
        shown[mode] = html.joined(*drawn)
    return html.section("Subgroups", *parts, by_mode(shown))


def forest(rows: pd.DataFrame, comparison: pd.DataFrame, mode: str) -> str:
    """The metric of each group and arm with its interval. `rows` are those of one column, mode, budget and metric."""
    metric = metric_of(rows["metric"].iloc[0])
    arms = list(dict.fromkeys(comparison["arm"]))
    shown = rows[~rows["too_small"].astype(bool)]
    ends = shown[["value", "lower", "upper"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    ticks = svg.ticks_for(float(ends.min()), float(ends.max()), most=6) if len(ends) else [0.0, 1.0]
    if metric.high is not None:
        ticks = [tick for tick in ticks if tick <= metric.high + 1e-9]
    x = svg.scale(ticks[0], max([ticks[-1], *ends]), _LEFT, _RIGHT)
    parts, height = [], 12.0
    for group, own in rows.groupby("group", sort=False):
        block = max(34.0, _STEP * len(arms) + 12)
        first = own.iloc[0]
        parts.append(svg.text(_LEFT - 14, height + block / 2 - 3, str(group), "name", "end"))
        parts.append(svg.text(_LEFT - 14, height + block / 2 + 12, f"{first['patients']:,} patients", "tick", "end"))
        if own["too_small"].astype(bool).all():
            parts.append(svg.text(_LEFT + 8, height + block / 2 + 4, "too few patients to say anything", "tick"))
        for row in own[~own["too_small"].astype(bool) & own["value"].notna()].to_dict("records"):
            i = arms.index(row["arm"])
            y = height + block / 2 + (i - (len(arms) - 1) / 2) * _STEP
            bar = svg.bar(x(row["lower"]), y, x(row["upper"]), y)
            parts.append(f'<g class="{svg.color(i)}">{bar}{svg.marker(i, x(row["value"]), y)}</g>')
        height += block
        parts.append(svg.line(8, height, _RIGHT, height, "grid"))
    grid = [svg.line(x(tick), 6, x(tick), height, "grid") for tick in ticks]
    grid += [svg.text(x(tick), height + 18, svg.tick_text(tick, ticks).replace("-", "−"), "tick", "middle") for tick in ticks]
    better = " (lower is better)" if metric.lower_is_better else ""
    grid.append(svg.text((_LEFT + _RIGHT) / 2, height + 38, metric.title + better, "label", "middle"))
    title = f"{mode_name(mode)}: {metric.title} by {str(rows['column'].iloc[0]).replace('_', ' ')}"
    return svg.document(_WIDTH, height + 48, title, "A point a group and arm; the numbers stand in the table.", grid + parts)


def _title(rows: pd.DataFrame) -> str:
    return metric_of(rows["metric"].iloc[0]).title


def _numbers(rows: pd.DataFrame, caption: str) -> Markup:
    arms = list(dict.fromkeys(rows["arm"]))
    counted = ["patients", "images"] + (["positives"] if rows["positives"].notna().all() else [])
    lines = []
    for group, own in rows.groupby("group", sort=False):
        by_arm = {row["arm"]: row for row in own.to_dict("records")}
        first = own.iloc[0]
        sizes = [f"{int(first[name]):,}" for name in counted]
        lines.append((str(group), *sizes, *(_cell(by_arm.get(arm)) for arm in arms)))
    headings = ("group", *counted, *(html.breakable(arm) for arm in arms))
    return html.table(caption, headings, lines, numbers=range(1, 1 + len(counted)))


def _cell(row: dict | None) -> Markup:
    if row is None:
        return Markup("–")
    if row["too_small"]:
        return Markup("<small>too few patients</small>")
    gap = "<small>gap unknown</small>"
    if math.isfinite(row["gap"]):
        sign = "+" if row["gap"] > 0 else ""
        gap = f"<small>gap {sign}{number(row['gap'])}</small>"
        gap += f"<small>{number(row['gap_lower'])} to {number(row['gap_upper'])}</small>"
    ends = f"{number(row['lower'])} to {number(row['upper'])}"
    return Markup(f"{number(row['value'])}<small>{ends}</small>{gap}".replace("-", "−"))
