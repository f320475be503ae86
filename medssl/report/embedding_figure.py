"""Embeddings as scatter plots of two principal components: coloured by label, and by vendor. Is it the scanner that was learnt?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medssl.evaluation.embedding import ToldApart, pca, subsample, told_apart
from medssl.report import html, svg
from medssl.report.html import Markup

POINTS = 2000  # drawn at most, an arm
MOST_COLOURS = svg.PALETTE - 1  # the others together are one more
_WIDTH, _HEIGHT, _MARGIN = 400, 330, 26
UNKNOWN, OTHERS = "unknown", "others"


@dataclass(frozen=True)
class Embeddings:
    """What the figure of one arm shows; see `embeddings_of`.

    Attributes:
        points: (n, 2) coordinates, n at most POINTS.
        explained: the shares of the variance that the two components explain.
        colours: heading -> (n,) names, such as "label" and "vendor".
        total: images that the components were computed on.
        told: heading -> how well its groups can be told from the embedding, where there are enough of them.
    """

    arm: str
    points: np.ndarray
    explained: tuple[float, float]
    colours: dict[str, np.ndarray]
    total: int
    told: dict[str, ToldApart] = field(default_factory=dict)


def embeddings_of(
    arm: str, features: np.ndarray, labels: Sequence[str], groups: dict[str, Sequence[str]], patients: np.ndarray, seed: int = 0
) -> Embeddings:
    """Project the features and measure how well each grouping can be told from them.

    All images make the components and the numbers; the figure draws up to POINTS of them at random, every label with its share.

    Args:
        features: (N, D) of a frozen encoder.
        labels: (N,) names of the label, None unknown.
        groups: heading ("vendor", "source") -> (N,) names, None unknown; those with a single name are left out.
        patients: (N,) keys; they decide folds and are not kept.
    """
    points, explained = pca(features)
    names = {"label": _named(labels)} | {name: _named(values) for name, values in groups.items() if len(set(values)) > 1}
    told = {name: told_apart(features, groups[name], patients, seed) for name in names if name in groups}
    shown = subsample(names["label"], POINTS, seed)
    return Embeddings(
        arm=arm,
        points=points[shown],
        explained=(float(explained[0]), float(explained[1])),
        colours={name: values[shown] for name, values in names.items()},
        total=len(points),
        told={name: found for name, found in told.items() if found is not None},
    )


def section(arms: Sequence[Embeddings]) -> Markup:
    """The arms' figures and numbers; empty without arms."""
    if not arms:
        return Markup("")
    parts = [
        html.paragraph(
            "Each point is an image, placed by the first two principal components of the arm's frozen features. What colours lie "
            "apart is what the encoder arranges images by. If vendors lie apart and labels do not, it is the scanner that was learnt."
        )
    ]
    lines = [_line(arm.arm, name, found) for arm in arms for name, found in arm.told.items()]
    if lines:
        parts.append(
            html.table(
                "How well groups can be told from the embedding: balanced accuracy of a linear probe, cross-validated by patient",
                ("arm", "told apart", "balanced accuracy", "chance", "images"),
                lines,
                numbers=(2, 3),
                kind="sizes",
            )
        )
    else:
        parts.append(
            html.paragraph("No two vendors or sources have enough images to ask how well they can be told apart.", "note")
        )
    for arm in arms:
        drawn = [html.figure(scatter(arm, name), f"coloured by {name}") for name in arm.colours]
        shown = (
            f"{len(arm.points):,} of {arm.total:,} images drawn at random"
            if len(arm.points) < arm.total
            else f"{arm.total:,} images"
        )
        first, second = (f"{share:.0%}" for share in arm.explained)
        below = f"{shown}; the two components explain {first} and {second} of the variance."
        parts.append(html.section(arm.arm, html.panels(drawn, named=True), html.paragraph(below, "note"), level=3))
    return html.section("What the embeddings are arranged by", *parts)


def scatter(arm: Embeddings, colour: str) -> str:
    """The points of one arm in the colours of one grouping, as an SVG with a legend; rare names share one colour."""
    values = arm.colours[colour]
    counts = pd.Series(values).value_counts()
    # The most frequent names, in alphabetical order: a name has one colour in the figures of all arms.
    main = sorted([str(name) for name in counts.index if name != UNKNOWN][:MOST_COLOURS])
    kinds = main + [OTHERS] * bool(set(counts.index) - {*main, UNKNOWN}) + [UNKNOWN] * (UNKNOWN in counts.index)
    named = np.where(np.isin(values, [*main, UNKNOWN]), values, OTHERS)
    low, high = arm.points.min(axis=0), arm.points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    top = _MARGIN + 18 * max(2, (len(kinds) + 1) // 2)  # figures of few and of more names stand at one height
    x = _MARGIN + (arm.points[:, 0] - low[0]) / span[0] * (_WIDTH - 2 * _MARGIN)
    y = top + _HEIGHT - (arm.points[:, 1] - low[1]) / span[1] * _HEIGHT
    parts = []
    for i, kind in enumerate(kinds):
        # One path a colour: 2,000 elements would weigh five times as much.
        own = named == kind
        dots = "".join(f"M{px:.0f} {py:.0f}h0" for px, py in zip(x[own], y[own], strict=True))
        color = "arm0" if kind in (UNKNOWN, OTHERS) else svg.color(i + 1)
        left, above = _MARGIN - 10 + (i % 2) * 190, 18 + 18 * (i // 2)
        parts.append(f'<g class="{color}"><path class="dots" d="{dots}"/>{svg.line(left, above - 4, left, above - 4, "dot")}</g>')
        parts.append(svg.text(left + 10, above, f"{kind} ({int(own.sum()):,})", "name"))
    parts.append(svg.text(_WIDTH / 2, top + _HEIGHT + 24, f"component 1 ({arm.explained[0]:.0%})", "label", "middle"))
    middle = top + _HEIGHT / 2
    more = f'transform="rotate(-90 10 {middle:.0f})"'
    parts.append(svg.text(10, middle, f"component 2 ({arm.explained[1]:.0%})", "label", "middle", more))
    title = f"{arm.arm}: embeddings coloured by {colour}"
    return svg.document(
        _WIDTH, top + _HEIGHT + 32, title, "Two principal components of the frozen features, a point an image.", parts
    )


def _named(values: Sequence) -> np.ndarray:
    return np.array([UNKNOWN if value is None or value != value or value == "" else str(value) for value in values], dtype=object)


def _line(arm: str, name: str, found: ToldApart) -> tuple[str, ...]:
    sizes = ", ".join(f"{group} {n:,}" for group, n in found.sizes.items())
    sizes += f"; {found.left_out:,} left out" if found.left_out else ""
    return arm, name, f"{found.balanced_accuracy:.2f}", f"{found.chance:.2f}", sizes
