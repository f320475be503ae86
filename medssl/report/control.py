"""The BatchNorm control: the linear probe with the encoder's statistics as loaded, beside the same with recalibrated ones."""

from __future__ import annotations

import pandas as pd

from medssl.evaluation.sentences import number
from medssl.report import html
from medssl.report.figures import budget_name, named_arm
from medssl.report.html import Markup
from medssl.report.metrics import metric_of, primary_of

PLAIN, RECALIBRATED = "linear", "linear_recalibrated"


def section(comparison: pd.DataFrame) -> Markup:
    """Both probes side by side, budget by budget; empty where one of them was not done."""
    metric = metric_of(primary_of(comparison))
    rows = comparison[comparison["metric"] == metric.name]
    both = {mode: rows[rows["mode"] == mode] for mode in (PLAIN, RECALIBRATED)}
    if any(table.empty for table in both.values()):
        return Markup("")
    keys = ["budget", "arm"]
    plain = {tuple(row[key] for key in keys): row for row in both[PLAIN].to_dict("records")}
    lines: list[tuple[str, ...]] = []
    changed = []
    for budget, block in both[RECALIBRATED].groupby("budget", sort=False):
        known = [row for row in block.to_dict("records") if (budget, row["arm"]) in plain]
        if not known:
            continue
        lines.append((f"{budget_name(known[0])} labelled patients",))
        for row in known:
            own = plain[budget, row["arm"]]
            change = row["value"] - own["value"]
            mark = named_arm(comparison, row["arm"])
            said = ("+" if change > 0 else "") + number(change)
            lines.append((mark, _value(own), _value(row), said.replace("-", "−")))
        orders = [_order([found[budget, row["arm"]] for row in known], metric.lower_is_better) for found in (plain, _by(block))]
        if orders[0] != orders[1]:
            changed.append(budget_name(known[0]))
    said = (
        f"The choice changes the order of the arms' values with {', '.join(changed)} labelled patients."
        if changed
        else "The choice changes the order of the arms' values at no budget."
    )
    text = (
        "Frozen features depend on BatchNorm's running statistics. The main probe takes them as loaded; the control recalibrates "
        f"them on the training images, for every arm alike. {said}"
    )
    headings = ("arm", f"{metric.start}, as loaded", "recalibrated", "change of the value")
    return html.section("Control: BatchNorm recalibrated", html.paragraph(text), html.table("", headings, lines, numbers=[3]))


def _by(block: pd.DataFrame) -> dict[tuple[str, str], dict]:
    return {(row["budget"], row["arm"]): row for row in block.to_dict("records")}


def _order(rows: list[dict], lower_is_better: bool) -> list[str]:
    return [row["arm"] for row in sorted(rows, key=lambda row: row["value"], reverse=not lower_is_better)]


def _value(row: dict) -> Markup:
    return Markup(f"{number(row['value'])}<small>{number(row['lower'])} to {number(row['upper'])}</small>".replace("-", "−"))
