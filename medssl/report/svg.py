"""What the figures are drawn with: scales, ticks, markers and lines as SVG text. Lengths are in user units (CSS pixels)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

PALETTE = 6  # colours arm0 .. arm5 of page.css; colours and markers repeat after that

_SHAPES = (
    '<circle cx="{x}" cy="{y}" r="4.5"/>',
    '<path d="M{x} {y}m-4.3 -4.3h8.6v8.6h-8.6z"/>',
    '<path d="M{x} {y}m0 -5.6l5.2 9.4h-10.4z"/>',
    '<path d="M{x} {y}m0 -6l6 6l-6 6l-6 -6z"/>',
    '<path d="M{x} {y}m0 5.6l5.2 -9.4h-10.4z"/>',
    '<path d="M{x} {y}m-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z"/>',
)


def ticks_for(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers that enclose [low, high], at most `most` + 1 of them; low and high finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    span = max(high - low, 1e-3)
    raw = span / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def tick_text(tick: float, ticks: Sequence[float]) -> str:
    digits = max(0, math.ceil(-math.log10(ticks[1] - ticks[0]) - 1e-9))
    text = f"{tick:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """The linear map of [low, high] to [start, stop]."""
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def color(i: int) -> str:
    return f"arm{i % PALETTE}"


def marker(i: int, x: float, y: float) -> str:
    if not (math.isfinite(x) and math.isfinite(y)):
        return ""
    return f'<g class="point">{_SHAPES[i % len(_SHAPES)].format(x=f"{x:.1f}", y=f"{y:.1f}")}</g>'


def bar(x1: float, y1: float, x2: float, y2: float) -> str:
    """An interval with short ends; nothing where it is unknown."""
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        return ""
    dx, dy = (3.5, 0) if x1 == x2 else (0, 3.5)
    ends = "".join(f"M{x - dx:.1f} {y - dy:.1f}L{x + dx:.1f} {y + dy:.1f}" for x, y in ((x1, y1), (x2, y2)))
    return f'<path class="bar" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}{ends}"/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, text: str, kind: str, anchor: str = "start", more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def document(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="figure" role="img" viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
