"""How many labels the reference needs to match an arm, and how many test patients a difference needs to be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from medssl.report import html
from medssl.report.html import Markup
from medssl.report.metrics import metric_of
from medssl.report.shown import by_mode, modes_of

MATCH_COLUMNS = {
    "arm": "the arm that is to be matched",
    "reference": "the arm that is given more labels",
    "mode": "how both were trained",
    "metric": "the primary metric of the task",
    "patients": "labelled patients of the arm, its smallest budget",
    "value": "what the arm reaches with them",
    "needed": "labelled patients with which the reference reaches it; inf: with none of the budgets",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval; inf: not reached",
    "found": "reached | at most (the smallest budget already does it) | not reached | unknown",
}
POWER_COLUMNS = {
    "arm": "the arm",
    "reference": "the arm that it is compared with",
    "mode": "how both were trained",
    "budget": "label of the budget",
    "metric": "the primary metric of the task",
    "difference": "true difference that is to be found",
    "patients": "test patients that find it with the power asked for; NaN: unknown",
}


def section(matches: pd.DataFrame | None, power: pd.DataFrame | None, comparison: pd.DataFrame, share: float = 0.8) -> Markup:
    """The labels to match as sentences, the patients to detect as a table, mode by mode; empty where both are.

    Args:
        matches: the table of `evaluation.efficiency.label_efficiency`.
        power: that of `evaluation.power.power_table`, made for the power `share`.
        comparison: says how large the budgets and the test set are.
    """
    parts: list[Markup] = []
    level = f"{comparison['level'].iloc[0]:.0%}"
    if matches is not None and not matches.empty:
        shown = {}
        for mode in modes_of(matches):
            most = int(comparison.loc[comparison["mode"] == mode, "budget_patients"].max())
            said = [match_sentence(row, most, level) for row in matches[matches["mode"] == mode].to_dict("records")]
            shown[mode] = html.bullets(said)
        note = (
            "Read off the reference's curve between its budgets, straight lines over the logarithm of the patients, never beyond "
            "them; with few label draws the intervals are too narrow."
        )
        parts.append(html.section("Labelled patients to match", by_mode(shown), html.paragraph(note, "note"), level=3))
    if power is not None and not power.empty:
        shown = {mode: _power(power[power["mode"] == mode], comparison) for mode in modes_of(power)}
        have = int(comparison["test_patients"].iloc[0])
        text = (
            f"Test patients that it takes to detect a true difference with {share:.0%} power, at a {level} interval, patients and "
            f"images like these; this study has {have:,}. What label draws add does not fall with more patients and is left out. A "
            "plan, not a finding."
        )
        parts.append(html.section("Test patients to detect a difference", html.paragraph(text), by_mode(shown), level=3))
    return html.section("How many patients it takes", *parts) if parts else Markup("")


def match_sentence(row: Mapping, most: int, level: str = "95%") -> str:
    """'imagenet needs about 130 labelled patients (95% interval 95 to 180) to match in_domain with 40.'

    `row` has the columns MATCH_COLUMNS, `most` is the number of labelled patients of the largest budget.
    """
    aim = f"to match {row['arm']} with {row['patients']:,}"
    ends = f"{level} interval {_end(row['lower'], most)} to {_end(row['upper'], most)}"
    reference, found = row["reference"], row["found"]
    if found == "not reached":
        return f"{reference} needs more than the {most:,} labelled patients of the largest budget {aim} ({ends})."
    if found == "at most":
        surely = row["upper"] <= row["patients"]
        return f"{reference} needs {row['patients']:,} labelled patients or fewer {aim}{'' if surely else f' ({ends})'}."
    if found == "reached":
        return f"{reference} needs about {row['needed']:,.0f} labelled patients ({ends}) {aim}."
    return f"How many labelled patients {reference} needs {aim} is unknown."


def _end(value: float, most: int) -> str:
    return "unknown" if math.isnan(value) else f"more than {most:,}" if math.isinf(value) else f"{value:,.0f}"


def _power(rows: pd.DataFrame, comparison: pd.DataFrame) -> Markup:
    """Arms and budgets down, differences across."""
    differences = sorted(set(rows["difference"]))
    sizes = comparison.drop_duplicates("budget").set_index("budget")["budget_patients"].to_dict()
    lines = []
    for (budget, arm, reference), own in rows.groupby(["budget", "arm", "reference"], sort=False):
        needed = dict(zip(own["difference"], own["patients"], strict=True))
        cells = ("?" if math.isnan(needed[size]) else f"{_rounded(needed[size]):,}" for size in differences)
        lines.append((f"{arm} and {reference}", f"{sizes.get(budget, budget):,}", *cells))
    title = metric_of(rows["metric"].iloc[0]).title
    headings = ("pair", "labelled patients", *(f"to detect {size:g} {title}" for size in differences))
    return html.table("", headings, lines, numbers=range(1, 2 + len(differences)))


def _rounded(value: float) -> int:
    """Two digits that count: a plan has no more."""
    if value < 100:
        return math.ceil(value)
    step = 10 ** (math.floor(math.log10(value)) - 1)
    return int(math.ceil(value / step) * step)
