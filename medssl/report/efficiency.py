"""How many labels the reference needs to match an arm, and how many test patients a difference needs to be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from medssl.report import html
from medssl.report.html import Markup
from medssl.report.metrics import metric_of
from medssl.report.shown import mode_name, modes_of

MATCH_COLUMNS = {
    "mode": "the mode of fine-tuning",
    "metric": "the metric that is matched",
    "arm": "the arm that is to be matched",
    "reference": "the arm that must match it",
    "budget": "label of the arm's budget",
    "budget_patients": "labelled patients of that budget",
    "needed": "labelled patients that the reference needs for the same value; inf: more than its largest budget, NaN: unknown",
    "lower": "lower end of its interval; 0 where fewer than the smallest budget would do",
    "upper": "upper end of its interval; inf: more than the largest budget",
    "least": "labelled patients of the reference's smallest budget",
    "most": "labelled patients of the reference's largest budget",
}
POWER_COLUMNS = {
    "mode": "the mode of fine-tuning",
    "metric": "the metric",
    "arm": "the arm",
    "reference": "the arm that it is compared with",
    "budget": "label of the budget",
    "difference": "the true difference that is to be detected",
    "power": "share of studies that would detect it, such as 0.8",
    "patients": "test patients needed, at this test set's mix of classes; inf: label draws alone leave it too uncertain",
    "test_patients": "test patients of this study",
}


def section(matches: pd.DataFrame | None, power: pd.DataFrame | None) -> Markup:
    """Both as sentences, mode by mode; empty where both are."""
    parts: list[Markup] = []
    if matches is not None and not matches.empty:
        said = [
            html.section(mode_name(mode), html.bullets(match_sentence(row) for row in _rows(matches, mode)), level=4)
            for mode in modes_of(matches)
        ]
        note = "Read off the reference's curve between its budgets, straight lines over the logarithm of the patients; intervals from the bootstrap."
        parts.append(html.section("Labelled patients to match", *said, html.paragraph(note, "note"), level=3))
    if power is not None and not power.empty:
        said = [
            html.section(mode_name(mode), html.bullets(power_sentence(row) for row in _rows(power, mode)), level=4)
            for mode in modes_of(power)
        ]
        note = "From the width of this study's intervals: what patients like these would need. A plan, not a finding."
        parts.append(html.section("Test patients to detect a difference", *said, html.paragraph(note, "note"), level=3))
    return html.section("How many patients it takes", *parts) if parts else Markup("")


def match_sentence(row: Mapping) -> str:
    """'imagenet needs 130 labelled patients (95 to 180) to match in_domain with 40.'"""
    aim = f"to match {row['arm']} with {row['budget_patients']:,.0f}"
    needed, lower, upper = row["needed"], row["lower"], row["upper"]
    if math.isnan(needed):
        return f"How many {row['reference']} needs {aim} cannot be read off its budgets."
    ends = f"{_end(lower, row, 'lower')} to {_end(upper, row, 'upper')}"
    if math.isinf(needed):
        return f"{row['reference']} needs more than the {row['most']:,.0f} labelled patients of its largest budget {aim} (interval {ends})."
    if needed <= row["least"]:
        return f"{row['reference']} needs {row['least']:,.0f} labelled patients or fewer {aim} (interval {ends})."
    return f"{row['reference']} needs {needed:,.0f} labelled patients ({ends}) {aim}."


def power_sentence(row: Mapping) -> str:
    """'With 40 labelled patients: to detect 0.02 AUROC … with 80 % power takes about 900 test patients; here are 412.'"""
    metric = metric_of(row["metric"]).title
    aim = f"{row['arm']} against {row['reference']}, budget {row['budget']}: to detect a difference of {row['difference']:g} in {metric}"
    aim += f" with {row['power']:.0%} power"
    if not math.isfinite(row["patients"]):
        return f"{aim}, no number of test patients suffices with these label draws: more draws are needed."
    return f"{aim} takes about {_rounded(row['patients']):,} test patients; this study has {row['test_patients']:,.0f}."


def _rows(table: pd.DataFrame, mode: str) -> list[dict]:
    return table[table["mode"] == mode].to_dict("records")


def _end(value: float, row: Mapping, side: str) -> str:
    if math.isnan(value):
        return "unknown"
    if math.isinf(value) or value > row["most"]:
        return f"more than {row['most']:,.0f}"
    return f"fewer than {row['least']:,.0f}" if side == "lower" and value < row["least"] else f"{value:,.0f}"


def _rounded(value: float) -> int:
    """Two digits that count: a plan has no more."""
    if value < 100:
        return math.ceil(value)
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return int(math.ceil(value / step) * step)
