"""Figures as inline SVG, coloured by the classes of page.css, so that they follow light, dark and print.

An arm has a colour and a marker of its own: neither alone carries the meaning.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd

from medssl.evaluation.verdicts import verdict
from medssl.report import html, svg
from medssl.report.html import Markup
from medssl.report.metrics import Metric, metric_of, primary_of
from medssl.report.shown import mode_name
from medssl.report.table import difference

WIDTH = 840
_DODGE = 9  # pixels between the arms of one budget, so that intervals stand beside each other


def curves(comparison: pd.DataFrame, mode: str, *, small: bool = False) -> str:
    """The primary metric against the labelled patients (log scale), one line an arm, with interval bars.

    The metric's scale is the same for all modes of the comparison, so that two figures can be held side by side. `small`: one
    of several panels, without the arms' names, which a legend beside the panels gives.
    """
    metric = metric_of(primary_of(comparison))
    own_metric = comparison[comparison["metric"] == metric.name]
    rows = own_metric[own_metric["mode"] == mode]
    budgets = rows.drop_duplicates("budget").to_dict("records")
    arms = list(dict.fromkeys(comparison["arm"]))
    width, dodge = (420, 7) if small else (WIDTH, _DODGE)
    left, top, bottom = 58, 32, 232 if small else 348
    right = width - (14 if small else 46 + _name_width(arms))
    ticks, y = _scale_y(own_metric, metric, top, bottom)
    places, logarithmic = _positions([row["budget_patients"] for row in budgets], left, right, len(arms) * dodge + 16)
    scale = "log scale" if logarithmic else "evenly spaced"
    parts = [_grid_y(ticks, y, left, right, metric)]
    for row, x in zip(budgets, places, strict=True):
        parts += [svg.text(x, bottom + 20, budget_name(row), "tick", "middle"), svg.line(x, bottom, x, bottom + 5, "axis")]
    below = "labelled patients" if small else f"labelled patients, validation included ({scale})"
    parts.append(svg.text((left + right) / 2, bottom + 42, below, "label", "middle"))
    better = " (lower is better)" if metric.lower_is_better else ""
    parts.append(svg.text(8, top - 16, metric.title + better, "label"))

    place_of = dict(zip((row["budget"] for row in budgets), places, strict=True))
    ends = []
    for i, arm in enumerate(arms):
        shift = (i - (len(arms) - 1) / 2) * dodge
        own = rows[rows["arm"] == arm].to_dict("records")
        points = [(place_of[row["budget"]] + shift, y(row["value"])) for row in own]
        known = [point for point in points if all(map(math.isfinite, point))]
        path = " ".join(f"{'L' if j else 'M'}{px:.1f} {py:.1f}" for j, (px, py) in enumerate(known))
        marks = [f'<path class="line" d="{path}"/>'] if known else []
        for row, (px, py) in zip(own, points, strict=True):
            marks += [svg.bar(px, y(row["lower"]), px, y(row["upper"])), svg.marker(i, px, py)]
        parts.append(f'<g class="{svg.color(i)}">{"".join(marks)}</g>')
        if known:
            ends.append((known[-1][1], i, arm, known[-1][0]))
    if not small:
        parts += _end_labels(ends, right + 26, top, bottom)
    title = f"{mode_name(mode)}: {metric.title} by labelled patients"
    return svg.document(width, bottom + 54, title, "Each point with its interval; the numbers stand in the table.", parts)


def named_arm(comparison: pd.DataFrame, arm: str) -> Markup:
    """An arm's mark and name, for a cell of a table; a long name may be wrapped after its underscores."""
    return Markup(f'<span class="arm">{legend_mark(comparison, arm)}<span>{html.breakable(arm)}</span></span>')


def legend(comparison: pd.DataFrame) -> str:
    """The arms' marks and names as one line of HTML, for figures that name none."""
    arms = dict.fromkeys(comparison["arm"])
    return f'<p class="legend">{"".join(f"<span>{legend_mark(comparison, arm)}{escape(arm)}</span>" for arm in arms)}</p>'


def forest(comparison: pd.DataFrame, mode: str) -> str:
    """The paired differences of the primary metric to the reference with their intervals, and the line of no difference.

    Empty where there is no other arm than the reference.
    """
    metric = metric_of(primary_of(comparison))
    rows = comparison[(comparison["metric"] == metric.name) & (comparison["mode"] == mode)]
    reference = rows["reference"].iloc[0]
    arms = list(dict.fromkeys(comparison["arm"]))
    others = rows[rows["arm"] != reference]
    if others.empty:
        return ""
    left, right, step, top = max(120, 32 + _name_width(arms)), WIDTH - 196, 25, 34
    ends = others[["difference", "difference_lower", "difference_upper"]].to_numpy(float)
    ends = ends[np.isfinite(ends)].tolist()
    ticks = svg.ticks_for(min([0.0, *ends]), max([0.0, *ends]), most=6)
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
    grid += _sides(x(0), top - 16, reference, metric)
    below = f"{metric.title} minus that of {reference}, paired"
    grid.append(svg.text((left + right) / 2, height + 40, below, "label", "middle"))
    title = f"{mode_name(mode)}: paired differences of {metric.title} to {reference}"
    return svg.document(
        WIDTH, height + 52, title, "A filled mark: the arms are told apart. A hollow mark: they are not.", grid + parts
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


def _sides(x: float, y: float, reference: str, metric: Metric) -> list[str]:
    """Which side of the line of no difference is better."""
    if metric.lower_is_better:
        return [svg.text(x - 8, y, "← better", "label", "end"), svg.text(x + 8, y, f"worse than {reference} →", "label")]
    return [svg.text(x - 8, y, f"← worse than {reference}", "label", "end"), svg.text(x + 8, y, "better →", "label")]


def _scale_y(rows: pd.DataFrame, metric: Metric, top: float, bottom: float) -> tuple[list[float], Callable[[float], float]]:
    """Ticks over every value and interval of the rows, and the map to pixels; an axis ends at the best value there is."""
    known = rows[["value", "lower", "upper"]].to_numpy(float)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    ticks = svg.ticks_for(low, high)
    if metric.high is not None:
        ticks = [tick for tick in ticks if tick <= metric.high + 1e-9]
    if len(ticks) < 2:
        ticks = [low - 0.5, high + 0.5]
    return ticks, svg.scale(ticks[0], max(ticks[-1], high), bottom, top)


def _grid_y(ticks: Sequence[float], y: Callable[[float], float], left: float, right: float, metric: Metric) -> str:
    lines = [svg.line(left, y(tick), right, y(tick), "grid") for tick in ticks]
    lines += [svg.text(left - 8, y(tick) + 4, svg.tick_text(tick, ticks).replace("-", "−"), "tick", "end") for tick in ticks]
    if metric.chance is not None and ticks[0] <= metric.chance <= ticks[-1]:
        lines.append(svg.line(left, y(metric.chance), right, y(metric.chance), "zero"))
        lines.append(svg.text(right - 4, y(metric.chance) - 5, "chance", "tick", "end"))
    return "".join(lines)
