"""Every pair of arms: the paired difference with its interval, and p after Holm's correction, as one matrix a budget."""

from __future__ import annotations

import math

import pandas as pd

from medssl.evaluation.sentences import number
from medssl.report import html
from medssl.report.figures import budget_name
from medssl.report.html import Markup
from medssl.report.metrics import Metric, metric_of
from medssl.report.shown import by_mode, modes_of

COLUMNS = {
    "a": "the first arm",
    "b": "the second arm",
    "mode": "the mode of fine-tuning",
    "budget": "label of the budget",
    "budget_patients": "labelled patients, validation included",
    "n_seeds": "label draws",
    "metric": "the metric that is compared",
    "difference": "a minus b, mean over the label draws",
    "lower": "lower end of its paired interval",
    "upper": "upper end of its paired interval",
    "p": "two-sided, from the bootstrap",
    "p_delong": "two-sided, DeLong, for a single pair of models; else NaN",
    "p_holm": "p after Holm's correction over its family",
    "verdict": "better, worse (a than b), unclear or too few",
}
_MARKS = {"better": "▲ ", "worse": "▼ "}


def section(pairs: pd.DataFrame | None) -> Markup:
    """A matrix for each mode and budget; empty without a table or where there are fewer than two arms."""
    if pairs is None or pairs.empty:
        return Markup("")
    metric = metric_of(pairs["metric"].iloc[0])
    better = "a negative one means that the row's arm is better" if metric.lower_is_better else "above 0 the row's arm is better"
    parts = [
        html.paragraph(
            f"Above the diagonal: {metric.title} of the arm of the row minus that of the column's, with its paired interval; {better}. "
            "Marked and coloured, from the row's side, where the interval leaves out 0 and p after Holm's correction agrees. "
            "Below the diagonal: p after Holm's correction over all pairs of the mode and budget, and below it p of this pair alone."
        )
    ]
    if pairs["p_delong"].notna().any():
        parts.append(html.paragraph("DeLong's p stands where a pair is one model against one other.", "note"))
    shown = {}
    for mode in modes_of(pairs):
        rows = pairs[pairs["mode"] == mode]
        shown[mode] = html.joined(*(_matrix(block, metric) for _, block in rows.groupby("budget", sort=False)))
    return html.section("Every pair of arms", *parts, by_mode(shown))


def _matrix(block: pd.DataFrame, metric: Metric) -> Markup:
    records = block.to_dict("records")
    arms = list(dict.fromkeys([*block["a"], *block["b"]]))
    cells = {(row["a"], row["b"]): _difference(row) for row in records} | {(row["b"], row["a"]): _chances(row) for row in records}
    head = "".join(f'<th scope="col">{html.breakable(arm)}</th>' for arm in arms)
    lines = []
    for arm in arms:
        own = [cells.get((arm, other), "<td class='self'>–</td>" if arm == other else "<td></td>") for other in arms]
        lines.append(f'<tr><th scope="row">{html.breakable(arm)}</th>{"".join(own)}</tr>')
    table = f'<table class="grid matrix"><thead><tr><th scope="col">arm</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return html.titled(f"{budget_name(records[0])} labelled patients, {metric.title}", Markup(table))


def _difference(row: dict) -> str:
    kind = row["verdict"]
    sign = "+" if row["difference"] > 0 else ""
    said = f"{_MARKS.get(kind, '')}{sign}{number(row['difference'])}".replace("-", "−")
    ends = f"{number(row['lower'])} to {number(row['upper'])}".replace("-", "−")
    few = "<small>test set too small</small>" if kind == "too few" else ""
    return f'<td class="{html.text(kind.split()[-1])}"><strong>{said}</strong><small>{ends}</small>{few}</td>'


def _chances(row: dict) -> str:
    alone = f"alone {probability(row['p'])}"
    if math.isfinite(row["p_delong"]):
        alone += f", DeLong {probability(row['p_delong'])}"
    return f"<td>{html.text(probability(row['p_holm']))}<small>{html.text(alone)}</small></td>"


def probability(p: float) -> str:
    """'p 0.012', 'p < 0.001', 'p unknown'."""
    if not math.isfinite(p):
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.995 else "p 1"
