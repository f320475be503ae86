"""Figures as inline SVG, coloured by the classes of page.css, so that they follow light, dark and print.

An arm has a colour and a marker of its own: neither alone carries the meaning.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from medssl.evaluation.answer import mode_name
from medssl.evaluation.comparison import verdict
from medssl.report import svg
from medssl.report.table import difference

WIDTH = 840
_DODGE = 9  # pixels between the arms of one budget, so that intervals stand beside each other


def curves(comparison: pd.DataFrame, mode: str) -> str:
    """AUROC against the labelled patients (log scale), one line an arm, with interval bars.

    The scale of the AUROC is the same for all modes of the comparison, so that two figures can be held side by side.
    """
    auroc = comparison[comparison["metric"] == "auroc"]
    rows = auroc[auroc["mode"] == mode]
    budgets = rows.drop_duplicates("budget")
    arms = list(dict.fromkeys(comparison["arm"]))
    left, right, top, bottom = 58, WIDTH - 46 - _name_width(arms), 32, 348
    low, high = float(auroc[["value", "lower"]].min(axis=None)), float(auroc[["value", "upper"]].max(axis=None))
    ticks = [tick for tick in svg.ticks_for(low, high) if tick <= 1 + 1e-9]  # an AUROC ends at 1
    y = svg.scale(ticks[0], max(ticks[-1], high), bottom, top)
    places, logarithmic = _positions(budgets["budget_patients"].tolist(), left, right, len(arms) * _DODGE + 16)
    names = [budget_name(row) for row in budgets.to_dict("records")]
    middle = (left + right) / 2
    scale = "log scale" if logarithmic else "evenly spaced"
    parts = [_grid_y(ticks, y, left, right)]
    for name, x in zip(names, places, strict=True):
        parts += [svg.text(x, bottom + 20, name, "tick", "middle"), svg.line(x, bottom, x, bottom + 5, "axis")]
    parts.append(svg.text(middle, bottom + 42, f"labelled patients, validation included ({scale})", "label", "middle"))
    parts.append(svg.text(left - 8, top - 16, "AUROC", "label", "end"))

    ends = []
    for i, arm in enumerate(arms):
        shift = (i - (len(arms) - 1) / 2) * _DODGE
        own = rows[rows["arm"] == arm].to_dict("records")
        points = [(x + shift, y(row["value"])) for x, row in zip(places, own, strict=True)]
        path = " ".join(f"{'L' if j else 'M'}{px:.1f} {py:.1f}" for j, (px, py) in enumerate(points))
        marks = [f'<path class="line" d="{path}"/>']
        for row, (px, py) in zip(own, points, strict=True):
            marks += [svg.bar(px, y(row["lower"]), px, y(row["upper"])), svg.marker(i, px, py)]
        parts.append(f'<g class="{svg.color(i)}">{"".join(marks)}</g>')
        ends.append((points[-1][1], i, arm, points[-1][0]))
    parts += _end_labels(ends, right + 26, top, bottom)
    title = f"{mode_name(mode)}: AUROC by labelled patients"
    return svg.document(WIDTH, bottom + 54, title, "Each point with its interval; the numbers stand in the table.", parts)


def forest(comparison: pd.DataFrame, mode: str) -> str:
    """The paired AUROC differences to the reference with their intervals, and the line of no difference."""
    rows = comparison[(comparison["metric"] == "auroc") & (comparison["mode"] == mode)]
    reference = rows["reference"].iloc[0]
    arms = list(dict.fromkeys(comparison["arm"]))
    others = rows[rows["arm"] != reference]
    if others.empty:
        return ""
    left, right, step, top = max(120, 32 + _name_width(arms)), WIDTH - 196, 25, 34
    low = min(0.0, float(others[["difference", "difference_lower"]].min(axis=None)))
    high = max(0.0, float(others[["difference", "difference_upper"]].max(axis=None)))
    ticks = svg.ticks_for(low, high, most=6)
    x = svg.scale(ticks[0], ticks[-1], left, right)

    parts, height = [], top
    for _, block in others.groupby("budget", sort=False):
        parts.append(svg.text(8, height + 13, f"With {budget_name(block.iloc[0])} labelled patients", "group"))
        height += step
        for row in block.to_dict("records"):
            i, middle = arms.index(row["arm"]), height + step / 2
            hollow = "" if verdict(row) in ("better", "worse") else " hollow"
            bar = svg.bar(x(row["difference_lower"]), middle, x(row["difference_upper"]), middle)
            parts.append(f'<g class="{svg.color(i)}{hollow}">{bar}{svg.marker(i, x(row["difference"]), middle)}</g>')
            parts.append(svg.text(left - 14, middle + 4, row["arm"], "name", "end"))
            parts.append(svg.text(right + 14, middle + 4, difference(row).replace("-", "−"), "value"))
            height += step
        height += 6
    grid = [svg.line(x(tick), top - 4, x(tick), height, "grid") for tick in ticks]
    grid += [svg.text(x(tick), height + 18, svg.tick_text(tick, ticks).replace("-", "−"), "tick", "middle") for tick in ticks]
    grid.append(svg.line(x(0), top - 12, x(0), height + 4, "zero"))
    grid.append(svg.text(x(0) - 8, top - 16, f"← worse than {reference}", "label", "end"))
    grid.append(svg.text(x(0) + 8, top - 16, "better →", "label"))
    grid.append(svg.text((left + right) / 2, height + 40, f"AUROC minus that of {reference}, paired", "label", "middle"))
    title = f"{mode_name(mode)}: paired AUROC differences to {reference}"
    return svg.document(
        WIDTH, height + 52, title, "A filled mark: the interval leaves out 0. A hollow mark: it does not.", grid + parts
    )


def legend_mark(comparison: pd.DataFrame, arm: str) -> str:
    """The marker of an arm as a small inline SVG for tables."""
    i = list(dict.fromkeys(comparison["arm"])).index(arm)
    return f'<svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><g class="{svg.color(i)}">{svg.marker(i, 8, 8)}</g></svg>'


def budget_name(row: Mapping) -> str:
    """'40', or '412 (all)' where the budget's label says something else than its patients."""
    size = str(row["budget_patients"])
    return size if row["budget"] == size else f"{size} ({row['budget']})"


def _name_width(arms: Sequence[str]) -> int:
    """Pixels that the longest name needs at most, at 12.5 pixels a letter's height."""
    return round(7.4 * max(map(len, arms)))


def _positions(sizes: Sequence[int], left: float, right: float, gap: float) -> tuple[list[float], bool]:
    """Where each budget stands, and whether the scale is logarithmic; evenly spaced where points would collide."""
    inner_left, inner_right = left + gap / 2 + 6, right - gap / 2
    if len(sizes) == 1:
        return [(left + right) / 2], True
    if min(sizes) > 0 and max(sizes) > min(sizes):
        scale = svg.scale(math.log(min(sizes)), math.log(max(sizes)), inner_left, inner_right)
        places = [scale(math.log(size)) for size in sizes]
        if min(b - a for a, b in itertools.pairwise(places)) >= gap:
            return places, True
    step = (inner_right - inner_left) / (len(sizes) - 1)
    return [inner_left + i * step for i in range(len(sizes))], False


def _end_labels(ends: list[tuple[float, int, str, float]], x: float, top: float, bottom: float) -> list[str]:
    """Arm names right of the last points, pushed apart, with a thin line back to the point."""
    ends = sorted(ends)
    places = [end[0] for end in ends]
    for j in range(1, len(places)):
        places[j] = max(places[j], places[j - 1] + 17)
    overflow = max(0.0, places[-1] - bottom)
    places = [place - overflow for place in places]
    for j in range(len(places) - 2, -1, -1):
        places[j] = min(places[j], places[j + 1] - 17)
    parts = []
    for (y, i, arm, px), place in zip(ends, places, strict=True):
        parts.append(svg.line(px + 8, y, x - 4, place, f"leader {svg.color(i)}"))
        parts.append(f'<g class="{svg.color(i)}">{svg.marker(i, x + 4, place)}</g>')
        parts.append(svg.text(x + 16, place + 4, arm, "name"))
    return parts


def _grid_y(ticks: Sequence[float], y: Callable[[float], float], left: float, right: float) -> str:
    lines = [svg.line(left, y(tick), right, y(tick), "grid") for tick in ticks]
    lines += [svg.text(left - 8, y(tick) + 4, svg.tick_text(tick, ticks), "tick", "end") for tick in ticks]
    if ticks[0] <= 0.5 <= ticks[-1]:
        lines.append(svg.line(left, y(0.5), right, y(0.5), "zero"))
        lines.append(svg.text(right - 4, y(0.5) - 5, "chance", "tick", "end"))
    return "".join(lines)
