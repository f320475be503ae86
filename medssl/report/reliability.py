"""Reliability diagrams: what share was observed where a model said so much, before and after temperature scaling."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from medssl.report import html, svg
from medssl.report.html import Markup
from medssl.report.shown import by_mode, largest_budget, mode_name, modes_of

COLUMNS = {
    "arm": "the arm",
    "mode": "the mode of fine-tuning",
    "budget": "label of the budget",
    "target": "the output; `called`: the class of the highest probability",
    "scaled": "after temperature scaling; false: as the model gave it",
    "bin": "number of the bin, from 0",
    "n": "images in the bin, of all draws and runs together",
    "mean_score": "mean probability in the bin, 0 .. 1",
    "share": "share of the images for which it was true, 0 .. 1",
    "lower": "lower end of the interval of `share`",
    "upper": "upper end",
}
_SIZE, _LEFT, _TOP, _HISTOGRAM = 250, 46, 14, 54
_BOTTOM = _TOP + _SIZE
_INTERVALS = 10  # of the histogram
MOST_TARGETS = 4


def section(table: pd.DataFrame | None, comparison: pd.DataFrame) -> Markup:
    """A panel an arm and target for each mode, at the largest budget; empty without a table.

    `table` is that of `evaluation.calibration.calibration_table`; of its columns those of COLUMNS are read. Of many targets the
    first MOST_TARGETS are drawn, and it is said.
    """
    if table is None or table.empty:
        return Markup("")
    parts = [
        html.paragraph(
            "Points on the dashed line are scores that can be read as probabilities; below it a model is too sure of itself. "
            "The temperature is one number, fitted inside the label budget. It changes no order of images and no AUROC. "
            "Bars below: the share of the images with such a score."
        ),
        Markup(
            '<p class="legend"><span class="before"><i></i>as the model gave it</span>'
            '<span class="after"><i></i>after temperature scaling</span></p>'
        ),
    ]
    targets = list(dict.fromkeys(table["target"]))
    if len(targets) > MOST_TARGETS:
        note = f"The first {MOST_TARGETS} of {len(targets)} targets are drawn; the table of all lies beside this page."
        parts.append(html.paragraph(note, "note"))
    table = table[table["target"].isin(targets[:MOST_TARGETS])]
    shown = {}
    for mode in modes_of(table):
        rows = table[table["mode"] == mode]
        budget = largest_budget(rows, comparison)
        rows = rows[rows["budget"] == budget]
        drawn = []
        for (arm, target), own in rows.groupby(["arm", "target"], sort=False):
            named = arm if len(targets) == 1 else f"{arm}, {target}"
            drawn.append(html.figure(diagram(own, named, mode_name(mode)), f"{named}, budget {budget}"))
        shown[mode] = html.joined(html.panels(drawn, named=True, narrow=True), html.details("The numbers", _numbers(rows)))
    return html.section("Calibration: can the scores be read as probabilities?", *parts, by_mode(shown))


def diagram(rows: pd.DataFrame, arm: str, mode: str) -> str:
    """One arm's diagram with the histogram of its scores, as an SVG. `rows` are those of one arm, mode and budget."""
    x, y = svg.scale(0, 1, _LEFT, _LEFT + _SIZE), svg.scale(0, 1, _BOTTOM, _TOP)
    floor = _BOTTOM + 30 + _HISTOGRAM
    counts = {scaled: _histogram(own) for scaled, own in rows.groupby(rows["scaled"].astype(bool))}
    most = max(float(count.max()) for count in counts.values())
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [svg.line(_LEFT, y(tick), x(1), y(tick), "grid"), svg.text(_LEFT - 6, y(tick) + 4, f"{tick:g}", "tick", "end")]
        parts.append(svg.text(x(tick), _BOTTOM + 16, f"{tick:g}", "tick", "middle"))
    parts += [svg.line(x(0), y(0), x(1), y(1), "zero"), svg.line(_LEFT, floor, x(1), floor, "axis")]
    parts.append(svg.text(_LEFT - 6, floor - _HISTOGRAM + 10, f"{most:.0%}", "tick", "end"))
    parts.append(svg.text(_LEFT + _SIZE / 2, floor + 18, "probability that the model gave", "label", "middle"))
    middle = _TOP + _SIZE / 2
    parts.append(svg.text(12, middle, "observed share", "label", "middle", f'transform="rotate(-90 12 {middle:.0f})"'))
    for index, scaled in enumerate((False, True)):
        own = rows[rows["scaled"].astype(bool) == scaled].sort_values("mean_score").to_dict("records")
        own = [row for row in own if row["n"] > 0 and math.isfinite(row["mean_score"])]
        marks = []
        for row in own:
            px = x(row["mean_score"])
            marks.append(svg.bar(px, y(row["lower"]), px, y(row["upper"])))
            marks.append(svg.marker(index, px, y(row["share"])))
        for i, share in enumerate(counts.get(scaled, ())):
            # The two stand beside each other, or they would cover each other.
            left, height = x(i / _INTERVALS) + 3 + 10 * index, _HISTOGRAM * share / most
            marks.append(f'<rect class="count" x="{left:.1f}" y="{floor - height:.1f}" width="9" height="{height:.1f}"/>')
        known = [(x(row["mean_score"]), y(row["share"])) for row in own if math.isfinite(row["share"])]
        path = " ".join(f"{'L' if j else 'M'}{px:.1f} {py:.1f}" for j, (px, py) in enumerate(known))
        line = f'<path class="line" d="{path}"/>' if known else ""
        parts.append(f'<g class="{"after" if scaled else "before"}">{line}{"".join(marks)}</g>')
    description = "Observed share against score, before and after temperature scaling; the numbers stand below the panels."
    return svg.document(_LEFT + _SIZE + 14, floor + 28, f"{mode}, {arm}: reliability", description, parts)


def _histogram(rows: pd.DataFrame) -> np.ndarray:
    """(_INTERVALS,) share of the images by score; each bin's images stand where their mean score lies."""
    places = np.minimum((rows["mean_score"].to_numpy(float) * _INTERVALS).astype(int), _INTERVALS - 1)
    counts = np.bincount(places, rows["n"].to_numpy(float), minlength=_INTERVALS)
    return counts / max(counts.sum(), 1.0)


def _numbers(rows: pd.DataFrame) -> Markup:
    """A row a bin, before and after scaling side by side: both have the same number of bins."""
    lines: list[tuple[str, ...]] = []
    for (arm, target), own in rows.groupby(["arm", "target"], sort=False):
        lines.append((f"{arm}, {target}",))
        by_bin: dict[int, dict[bool, dict]] = {}
        for row in own.to_dict("records"):
            by_bin.setdefault(int(row["bin"]), {})[bool(row["scaled"])] = row
        lines += [
            (str(place + 1), *_cells(by_bin[place].get(False)), *_cells(by_bin[place].get(True))) for place in sorted(by_bin)
        ]
    names = ("mean score", "observed share", "images")
    headings = ("bin", *names, *(f"{name}, scaled" for name in names))
    return html.table("", headings, lines, numbers=range(1, 7), kind="dense")


def _cells(row: dict | None) -> tuple[str, str, str]:
    if row is None or not row["n"]:
        return "–", "–", "0"
    ends = f" ({row['lower']:.2f} to {row['upper']:.2f})" if math.isfinite(row["lower"]) else ""
    return f"{row['mean_score']:.2f}", f"{row['share']:.2f}{ends}", f"{row['n']:,.0f}"
