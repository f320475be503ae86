"""What was watched while an encoder was pretrained, as one SVG file of small panels, and several runs over each other.

The file brings its own styles and its white ground, so that it looks the same in a browser, on GitHub and in MLflow. The line's
kind says what a curve is of (z, p, features), its colour and its mark which run; thresholds are red, dashed, and named at their right end.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from medssl.methods.collapse.verdict import (
    COLLAPSED_P_STD,
    COLLAPSED_RANK,
    COLLAPSED_STD,
    HIGH_CORRELATION,
    LOW_RANK_SHARE,
    LOWEST_RANK_SHARE,
    RAISED_CORRELATION,
    Verdict,
    verdict,
)
from medssl.report import svg

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 3, 300, 176, 20
WIDTH = COLUMNS * PANEL_WIDTH + MARGIN
_INNER_LEFT, _INNER_RIGHT, _INNER_TOP, _INNER_BOTTOM = 50, 32, 24, 30  # px of a panel around its axes
_POINTS = 400  # of a curve at most: more than a panel has pixels
_LOG_SPAN = 20.0  # a gradient norm that varies less needs no log scale

_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;fill:#1c2126}"
    ".head{font-size:17px;font-weight:650}.panel{font-weight:650}.tick,.said{fill:#5a646e}.tick{font-size:10.5px}"
    ".limit-text{font-size:10.5px;fill:#9b2f0b;paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".grid{stroke:#e6e9ec}.axis{stroke:#5a646e}.limit{stroke:#9b2f0b;stroke-dasharray:5 3;opacity:.8}"
    ".line{fill:none;stroke:currentColor;stroke-width:1.7;stroke-linejoin:round}"
    ".p,.line.p{stroke-dasharray:6 3}.features,.line.features{stroke-dasharray:1.5 2.5}"
    ".line.other{stroke:#8b949e;stroke-width:1.3}.point{fill:currentColor;stroke:#fff;stroke-width:1}"
    ".arm0{color:#0068a8}.arm1{color:#c24a00}.arm2{color:#00785a}.arm3{color:#9a3d85}.arm4{color:#8a6d00}.arm5{color:#5b6570}"
)
_NAMES = {"": "z", "p": "p", "features": "features", "other": "reference"}

History = pd.DataFrame | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Panel:
    """One small figure: curves by the key of the log and their kind, thresholds, and a scale."""

    title: str
    curves: dict[str, str]  # key -> kind: "" for z and for what there is one of; "p"; "features"; "other"
    limits: tuple[tuple[float, str], ...] = ()  # value, name
    low: float | None = None
    high: float | None = None
    scale: str = "linear"  # linear; log; auto: log where the values span much


_PANELS = (
    _Panel("Loss", {"loss": ""}),
    _Panel("Gradient norm", {"grad_norm": ""}, scale="auto"),
    _Panel("kNN AUROC; grey: random network", {"knn_auroc": "", "knn_auroc_random": "other"}, (), 0.5, 1),
    _Panel("std · √d", {"z_std_sqrt_d": "", "p_std_sqrt_d": "p"}, ((COLLAPSED_STD, "z "), (COLLAPSED_P_STD, "p ")), 0, 1),
    _Panel("Length of the mean, m_o", {"z_mean": "", "p_mean": "p"}, (), 0, 1),
    _Panel(
        "Mean |correlation| of channels",
        {"z_correlation": "", "features_correlation": "features"},
        ((RAISED_CORRELATION, ""), (HIGH_CORRELATION, "")),
        0,
        1,
    ),
    _Panel(
        "Effective rank; grey: z of a Gaussian",
        {"z_effective_rank": "", "p_effective_rank": "p", "features_effective_rank": "features", "gaussian_rank": "other"},
        ((COLLAPSED_RANK, ""),),
        1,
        scale="log",
    ),
    _Panel(
        "Rank, share of a Gaussian's",
        {"z_rank_share": "", "features_rank_share": "features"},
        ((LOWEST_RANK_SHARE, "z "), (LOW_RANK_SHARE, "z ")),
        0,
        1,
    ),
    _Panel("AUC of singular values", {"z_auc": "", "features_auc": "features"}, (), 0.5, 1),
    _Panel("Alignment of two views", {"z_alignment": ""}, (), 0),
    _Panel("Uniformity", {"z_uniformity": ""}, (), None, 0),
)


def collapse_figure(history: History, title: str) -> str:
    """One run: every figure by step, the thresholds, and below the title what the last check means.

    Args:
        history: records by `step`, or a table of them, with the keys of `CollapseMonitor.report` and `loss`, `grad_norm`, `knn_auroc`,
            `knn_auroc_random`, each with `pretrain/` before it or without. A record need not hold all; what is not finite is not drawn.
    Returns:
        A standalone SVG document.
    Raises:
        ValueError: no record has a step.
    """
    table = _table(history)
    said = _last_verdict(table)
    heading = f"{title}: {said.state}" if said else title
    below = textwrap.wrap(said.sentence, 140) if said else []
    key = [_sample(kind, "arm0", _NAMES[kind], None) for kind in _kinds([table])]
    return _document(heading, below, [key], {"": table})


def side_by_side(histories: Mapping[str, History], title: str) -> str:
    """Several runs over each other, a colour and a mark each; arguments and errors as of `collapse_figure`.

    Raises:
        ValueError: there is no run, or one has no record with a step.
    """
    if not histories:
        raise ValueError("expected at least one run")
    tables = {name: _table(history) for name, history in histories.items()}
    runs = []
    for i, (name, table) in enumerate(tables.items()):
        said = _last_verdict(table)
        runs.append(_sample("", svg.color(i), f"{name}: {said.state}" if said else name, i))
    key = [_sample(kind, "arm5", _NAMES[kind], None) for kind in _kinds(tables.values())]
    return _document(title, [], [runs, key], tables)


def _table(history: History) -> pd.DataFrame:
    """Numbers by step, without `pretrain/`. What a record says is NaN becomes infinite, so that only what it does not say is NaN."""
    records = history.to_dict("records") if isinstance(history, pd.DataFrame) else history
    keys = {"step", *(key for panel in _PANELS for key in panel.curves)}
    told = []
    for record in records:
        named = {str(name).removeprefix("pretrain/"): value for name, value in record.items()}
        # A table has NaN where a record says nothing.
        blank = isinstance(history, pd.DataFrame)
        told.append({name: _number(value) for name, value in named.items() if name in keys and not (blank and pd.isna(value))})
    table = pd.DataFrame([record for record in told if "step" in record])
    if table.empty:
        raise ValueError("expected records with a step")
    if {"z_effective_rank", "z_rank_share"} <= set(table):
        table["gaussian_rank"] = table["z_effective_rank"] / table["z_rank_share"]
    return table.sort_values("step", kind="stable")


def _number(value: Any) -> float:
    """The log writes NaN and infinities as words."""
    number = float(value)
    return number if math.isfinite(number) else math.inf


def _last_verdict(table: pd.DataFrame) -> Verdict | None:
    """Of the last row with the monitor's figures, with the last loss, gradient norm and kNN, which may be logged apart."""
    if not {"z_std_sqrt_d", "z_effective_rank", "z_rank_share", "z_correlation"} <= set(table):
        return None
    checked = table[table["z_rank_share"].notna()]
    report = checked.iloc[-1].dropna().drop(["step", "gaussian_rank"], errors="ignore").to_dict()
    for name in ("loss", "grad_norm", "knn_auroc", "knn_auroc_random"):
        if name in table:
            report[name] = table[name].dropna().iloc[-1]
    if "loss" in table:
        report["loss_first"] = table["loss"].dropna().iloc[0]
    return verdict(report)


def _kinds(tables: Any) -> list[str]:
    found = {kind for table in tables for panel in _PANELS for key, kind in panel.curves.items() if key in table}
    return [kind for kind in ("", "p", "features") if kind in found]


def _document(title: str, said: list[str], keys: list[list[tuple[str, float]]], tables: dict[str, pd.DataFrame]) -> str:
    panels = [
        panel
        for panel in _PANELS
        if any(math.isfinite(value) for table in tables.values() for key in panel.curves for value in table.get(key, ()))
    ]
    parts, y = [svg.text(MARGIN, 30, title, "head")], 30.0
    for row in said:
        y += 17
        parts.append(svg.text(MARGIN, y, row, "said"))
    for key in keys:
        y = _key(key, y + 20, parts)
    top = y + 16
    steps = [step for table in tables.values() for step in (table["step"].min(), table["step"].max())]
    for i, panel in enumerate(panels):
        row, column = divmod(i, COLUMNS)
        parts.append(_draw(panel, tables, min(steps), max(steps), MARGIN / 2 + column * PANEL_WIDTH, top + row * PANEL_HEIGHT))
    height = top + PANEL_HEIGHT * math.ceil(len(panels) / COLUMNS) + 6
    ground = f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>'
    drawing = svg.document(
        WIDTH, height, title, " ".join(said) or "Dashed red lines are the monitor's thresholds.", [ground, *parts]
    )
    # A file of its own needs a size: without one some viewers draw it as an empty image.
    return drawing.replace("<svg ", f'<svg width="{WIDTH}" height="{height:.0f}" ', 1)


def _sample(kind: str, color: str, name: str, mark: int | None) -> tuple[str, float]:
    """An entry of a key, drawn from (0, 0), and its width."""
    drawn = "" if mark is None else svg.marker(mark, 13, -4)
    line = f'<g class="{color}"><path class="line {kind}" d="M0 -4L26 -4"/>{drawn}</g>'
    return line + svg.text(32, 0, name, "name"), 32 + 6.6 * len(name) + 22


def _key(entries: list[tuple[str, float]], y: float, parts: list[str]) -> float:
    """Entries beside each other, on as many rows as they need; returns where the last row stands."""
    x = float(MARGIN)
    for drawing, width in entries:
        if x > MARGIN and x + width > WIDTH - MARGIN:
            x, y = float(MARGIN), y + 19
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})">{drawing}</g>')
        x += width
    return y


def _draw(panel: _Panel, tables: dict[str, pd.DataFrame], first: float, last: float, x0: float, y0: float) -> str:
    left, right = x0 + _INNER_LEFT, x0 + PANEL_WIDTH - _INNER_RIGHT
    top, bottom = y0 + _INNER_TOP, y0 + PANEL_HEIGHT - _INNER_BOTTOM
    values = [
        value for table in tables.values() for key in panel.curves if key in table for value in table[key] if math.isfinite(value)
    ]
    log, ticks = _ticks(panel, values)
    place = (lambda value: math.log10(max(value, 1e-12))) if log else (lambda value: value)
    # Chance takes a std x sqrt(d) a little above 1: no reason for another tick.
    linear = svg.scale(place(ticks[0]), place(max([ticks[-1], *values])), bottom, top)
    y: Callable[[float], float] = lambda value: linear(place(value))  # noqa: E731
    x = svg.scale(first, max(last, first + 1), left, right)
    parts = [svg.text(x0 + 8, y0 + 12, panel.title, "panel")]
    for tick in ticks:
        parts += [
            svg.line(left, y(tick), right, y(tick), "grid"),
            svg.text(left - 5, y(tick) + 4, _label(tick, ticks, log), "tick", "end"),
        ]
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    for step in (first, last):
        parts.append(svg.text(x(step), bottom + 15, f"{step:,.0f}", "tick", "start" if step == first else "end"))
    parts.append(svg.text((left + right) / 2, bottom + 15, "step", "tick", "middle"))
    for limit, name in panel.limits:
        if ticks[0] <= limit <= ticks[-1]:
            parts.append(svg.line(left, y(limit), right, y(limit), "limit"))
            parts.append(svg.text(right + 3, y(limit) + 4, f"{name}{limit:g}", "limit-text"))
    for i, table in enumerate(tables.values()):
        curves = "".join(_curve(table, key, kind, x, y, i if len(tables) > 1 else None) for key, kind in panel.curves.items())
        parts.append(f'<g class="{svg.color(i)}">{curves}</g>')
    return "".join(parts)


def _curve(table: pd.DataFrame, key: str, kind: str, x: Callable, y: Callable, mark: int | None) -> str:
    if key not in table:
        return ""
    own = table[["step", key]].dropna()
    own = own.iloc[sorted({*range(0, len(own), max(1, -(-len(own) // _POINTS))), *([len(own) - 1] if len(own) else [])})]
    points = [(x(step), y(value)) for step, value in own.itertuples(index=False) if math.isfinite(value)]
    if not points:
        return ""
    path = " ".join(f"{'L' if j else 'M'}{px:.1f} {py:.1f}" for j, (px, py) in enumerate(points))
    single = len(points) == 1
    drawn = f'<path class="line {kind}" data-key="{escape(key)}" d="{path}"/>'
    end = svg.marker(mark or 0, *points[-1]) if single or (mark is not None and kind == "") else ""
    return drawn + end


def _ticks(panel: _Panel, values: list[float]) -> tuple[bool, list[float]]:
    """Whether the scale is logarithmic, and its ticks, which enclose the values."""
    low = min(values) if panel.low is None else min(panel.low, *values)
    high = max(values) if panel.high is None else panel.high
    positive = min(values) > 0
    log = panel.scale == "log" or (panel.scale == "auto" and positive and max(values) > _LOG_SPAN * min(values))
    if not log:
        return False, svg.ticks_for(low, max(low, high), most=6)
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    step = max(1, -(-(last - first) // 5))
    return True, [10.0**power for power in range(first, max(last, first + 1) + step, step)]


def _label(tick: float, ticks: list[float], log: bool) -> str:
    return f"{tick:g}" if log else svg.tick_text(tick, ticks).replace("-", "−")
