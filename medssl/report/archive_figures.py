"""The figures of the page of an archive, drawn as those of the comparison: inline SVG in the colours of page.css."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl.report import svg
from medssl.report.archive_sample import Histogram

WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 430, 52, 414, 52, 190
_SHARES = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def histogram(found: Histogram) -> str:
    """A curve for each vendor, on a root scale, so that a dark background does not press everything else flat."""
    vendors = _vendors(found)
    most = max(float(found.shares[vendor].max()) for vendor in vendors)
    x = svg.scale(found.edges[0], found.edges[-1], _LEFT, _RIGHT)
    root = svg.scale(0, max(most, 1e-6) ** 0.5, _BOTTOM, _TOP)

    def y(share: float) -> float:
        return root(share**0.5)

    known = [vendor for vendor in vendors if vendor]  # grey, the first colour, is for the others
    legend = _BOTTOM + 54
    parts = [svg.text(8, 15, name_of(found), "group"), _grid(found, x, y, most), _window(found, x)]
    for i, vendor in enumerate(vendors):
        color = svg.color(1 + known.index(vendor) if vendor else 0)
        parts.append(f'<g class="{color}">{_curve(found.edges, found.shares[vendor], x, y, area=len(vendors) == 1)}</g>')
        left, top = _LEFT + i % 2 * 190, legend + i // 2 * 18
        parts.append(f'<g class="{color}"><path class="line" d="M{left} {top - 4}h18"/></g>')
        parts.append(svg.text(left + 24, top, f"{vendor or 'vendor unknown'} ({found.counts[vendor]:,})", "name"))
    height = legend + (len(vendors) - 1) // 2 * 18 + 8
    return svg.document(
        WIDTH, height, f"{name_of(found)}: pixel values", "The mean share of an image's pixels in each bin.", parts
    )


def _vendors(found: Histogram) -> list[str]:
    """Those with the most images, as many as there are colours; "" stands for all of unknown vendor."""
    order = sorted(found.shares, key=lambda vendor: (-found.counts[vendor], vendor))
    known = [vendor for vendor in order if vendor][: svg.PALETTE - 1]
    return [vendor for vendor in order if vendor in known or not vendor]


def name_of(found: Histogram) -> str:
    """'CT', 'CT, volumes', 'SM, colour'."""
    kind = {"volume": ", volumes", "colour image": ", colour"}.get(found.kind, "")
    return f"{found.modality or 'modality not in the file'}{kind}"


def _curve(edges: np.ndarray, shares: np.ndarray, x, y, *, area: bool) -> str:
    corners = "".join(f"L{x(a):.1f} {y(s):.1f}L{x(b):.1f} {y(s):.1f}" for a, b, s in zip(edges, edges[1:], shares, strict=False))
    fill = f'<path class="area" d="M{x(edges[0]):.1f} {_BOTTOM}{corners}L{x(edges[-1]):.1f} {_BOTTOM}z"/>' if area else ""
    return f'{fill}<path class="line" d="M{corners[1:]}"/>'


def _window(found: Histogram, x) -> str:
    if found.window is None:
        return ""
    low, high = found.edges[0], found.edges[-1]
    shown = [x(end) for end in found.window if low <= end <= high]
    middle = (x(max(low, found.window[0])) + x(min(high, found.window[1]))) / 2
    lines = "".join(svg.line(place, _TOP - 12, place, _BOTTOM, "zero") for place in shown)
    return lines + (svg.text(middle, _TOP - 18, "window", "tick", "middle") if shown else "")


def _grid(found: Histogram, x, y, most: float) -> str:
    parts = [svg.line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    last = float("inf")
    for share in (share for share in _SHARES if share <= most):
        if last - y(share) >= 22 and _BOTTOM - y(share) >= 14:
            last = y(share)
            parts.append(svg.line(_LEFT, last, _RIGHT, last, "grid"))
            parts.append(svg.text(_LEFT - 6, last + 4, f"{share:.{_digits(share)}%}", "tick", "end"))
    ticks = svg.ticks_for(found.edges[0], found.edges[-1], most=6)
    inside = [tick for tick in ticks if found.edges[0] <= tick <= found.edges[-1]]
    parts += [svg.text(x(tick), _BOTTOM + 18, _tick(tick, ticks), "tick", "middle") for tick in inside]
    unit = "HU" if found.modality == "CT" else "red, green and blue" if found.kind == "colour image" else "units of the file"
    parts.append(svg.text((_LEFT + _RIGHT) / 2, _BOTTOM + 34, unit, "label", "middle"))
    return "".join(parts)


def _tick(tick: float, ticks: Sequence[float]) -> str:
    return svg.tick_text(tick, ticks).replace("-", "−")


def _digits(share: float) -> int:
    return 0 if share >= 0.01 else 1 if share >= 0.001 else 2
