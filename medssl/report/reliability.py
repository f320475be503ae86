"""Reliability diagrams: what share was observed where a model said so much, before and after temperature scaling."""

from __future__ import annotations

import math

import pandas as pd

from medssl.report import html, svg
from medssl.report.html import Markup
from medssl.report.shown import largest_budget, mode_name, modes_of

COLUMNS = {
    "arm": "the arm",
    "mode": "the mode of fine-tuning",
    "budget": "label of the budget",
    "bin": "number of the bin, from 0",
    "mean_score": "mean score of the images in the bin, 0 .. 1",
    "observed": "share of them that are positive (of the predicted class), 0 .. 1",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval",
    "n": "images in the bin (mean over the label draws)",
    "scaled": "after temperature scaling; false: as the model gave it",
}
_SIZE, _LEFT, _TOP, _HISTOGRAM = 250, 46, 14, 54
_BOTTOM = _TOP + _SIZE


def section(table: pd.DataFrame | None, comparison: pd.DataFrame) -> Markup:
    """A panel an arm for each mode, at the largest budget; empty without a table. `table` has the columns COLUMNS."""
    if table is None or table.empty:
        return Markup("")
    parts = [
        html.paragraph(
            "Points on the dashed line are scores that can be read as probabilities; below it a model is too sure of itself. "
            "The temperature is one number, fitted inside the label budget. It changes no order of images and no AUROC. "
            "Bars below: how many images have such a score."
        ),
        Markup(
            '<p class="legend"><span class="before"><i></i>as the model gave it</span>'
            '<span class="after"><i></i>after temperature scaling</span></p>'
        ),
    ]
    for mode in modes_of(table):
        rows = table[table["mode"] == mode]
        budget = largest_budget(rows, comparison)
        rows = rows[rows["budget"] == budget]
        drawn = []
        for arm in dict.fromkeys(rows["arm"]):
            drawn.append(html.figure(diagram(rows[rows["arm"] == arm], arm, mode_name(mode)), f"{arm}, budget {budget}"))
        parts.append(html.section(mode_name(mode), html.panels(drawn), html.details("The numbers", _numbers(rows)), level=3))
    return html.section("Calibration: can the scores be read as probabilities?", *parts)


def diagram(rows: pd.DataFrame, arm: str, mode: str) -> str:
    """One arm's diagram with the histogram of its scores, as an SVG. `rows` are those of one arm, mode and budget."""
    x, y = svg.scale(0, 1, _LEFT, _LEFT + _SIZE), svg.scale(0, 1, _BOTTOM, _TOP)
    floor = _BOTTOM + 30 + _HISTOGRAM
    most = max(1.0, float(rows["n"].max()))
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [svg.line(_LEFT, y(tick), x(1), y(tick), "grid"), svg.text(_LEFT - 6, y(tick) + 4, f"{tick:g}", "tick", "end")]
        parts.append(svg.text(x(tick), _BOTTOM + 16, f"{tick:g}", "tick", "middle"))
    parts += [svg.line(x(0), y(0), x(1), y(1), "zero"), svg.line(_LEFT, floor, x(1), floor, "axis")]
    parts.append(svg.text(_LEFT - 6, floor - _HISTOGRAM + 10, f"{most:.0f}", "tick", "end"))
    parts.append(svg.text(_LEFT + _SIZE / 2, floor + 18, "score", "label", "middle"))
    middle = _TOP + _SIZE / 2
    parts.append(svg.text(12, middle, "observed share", "label", "middle", f'transform="rotate(-90 12 {middle:.0f})"'))
    for index, scaled in enumerate((False, True)):
        own = rows[rows["scaled"].astype(bool) == scaled].sort_values("mean_score").to_dict("records")
        own = [row for row in own if row["n"] > 0 and math.isfinite(row["mean_score"])]
        shift = 3 * (2 * index - 1)  # the two stand beside each other where they would cover each other
        marks = []
        for row in own:
            px, height = x(row["mean_score"]), _HISTOGRAM * row["n"] / most
            marks.append(svg.bar(px, y(row["lower"]), px, y(row["upper"])))
            marks.append(svg.marker(index, px, y(row["observed"])))
            marks.append(
                f'<rect class="count" x="{px + shift - 3:.1f}" y="{floor - height:.1f}" width="6" height="{height:.1f}"/>'
            )
        known = [(x(row["mean_score"]), y(row["observed"])) for row in own if math.isfinite(row["observed"])]
        path = " ".join(f"{'L' if j else 'M'}{px:.1f} {py:.1f}" for j, (px, py) in enumerate(known))
        line = f'<path class="line" d="{path}"/>' if known else ""
        parts.append(f'<g class="{"after" if scaled else "before"}">{line}{"".join(marks)}</g>')
    description = "Observed share against score, before and after temperature scaling; the numbers stand below the panels."
    return svg.document(_LEFT + _SIZE + 14, floor + 28, f"{mode}, {arm}: reliability", description, parts)


def _numbers(rows: pd.DataFrame) -> Markup:
    lines: list[tuple[str, ...]] = []
    for (arm, scaled), own in rows.groupby(["arm", "scaled"], sort=False):
        lines.append((f"{arm}, {'after temperature scaling' if scaled else 'as the model gave it'}",))
        for row in own.sort_values("bin").to_dict("records"):
            if row["n"] > 0:
                ends = f"{row['lower']:.2f} to {row['upper']:.2f}" if math.isfinite(row["lower"]) else "?"
                lines.append(
                    (str(int(row["bin"]) + 1), f"{row['mean_score']:.2f}", f"{row['observed']:.2f}", ends, f"{row['n']:.0f}")
                )
    return html.table("", ("bin", "mean score", "observed share", "interval", "images"), lines, numbers=range(1, 5))
