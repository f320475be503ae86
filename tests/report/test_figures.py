from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from medssl.report.figures import curves, forest, legend_mark
from medssl.report.svg import tick_text, ticks_for

SVG = "{http://www.w3.org/2000/svg}"


def _texts(drawing: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def _points(drawing: str) -> list[tuple[float, float]]:
    """Where the path of each arm's line starts and passes, in order."""
    lines = [path.get("d") for path in ElementTree.fromstring(drawing).iter(f"{SVG}path") if path.get("class") == "line"]
    return [tuple(map(float, point)) for line in lines for point in re.findall(r"[ML]([\d.]+) ([\d.]+)", line)]


def test_curves_name_arms_and_budgets(comparison):
    texts = _texts(curves(comparison, "full"))
    assert {"random", "imagenet", "in_domain", "40", "412 (all)", "AUROC"} <= set(texts)
    assert "labelled patients, validation included (log scale)" in texts


def test_intervals_of_one_budget_do_not_overlap(comparison):
    xs = sorted(x for x, _ in _points(curves(comparison, "full")))
    assert len(xs) == 6
    assert np.diff(xs).min() > 8


def test_a_higher_auroc_is_drawn_higher(comparison):
    rows = comparison[(comparison["mode"] == "full") & (comparison.metric == "auroc")]
    values = [value for arm in ("random", "imagenet", "in_domain") for value in rows[rows.arm == arm].value]
    heights = [-y for _, y in _points(curves(comparison, "full"))]
    assert np.corrcoef(values, heights)[0, 1] == pytest.approx(1, abs=1e-4)


def test_budgets_that_would_collide_are_spaced_evenly_and_it_is_said(make):
    drawing = curves(make(budgets=(("40", 40), ("400", 400), ("all", 412))), "full")
    assert any("evenly spaced" in text for text in _texts(drawing))
    assert np.diff(sorted(x for x, _ in _points(drawing))).min() > 8


def test_labels_at_the_end_do_not_cover_each_other(make):
    arms = tuple(f"arm{i}" for i in range(8))
    drawing = curves(make(arms=("imagenet", *arms), budgets=(("40", 40),)), "full")
    root = ElementTree.fromstring(drawing)
    heights = sorted(float(t.get("y")) for t in root.iter(f"{SVG}text") if t.text in arms)
    assert len(heights) == 8
    assert np.diff(heights).min() > 16


def test_forest_fills_what_leaves_out_zero(comparison):
    changed = comparison.copy()
    ours = (changed.arm == "in_domain") & (changed["mode"] == "full") & (changed.metric == "auroc")
    changed.loc[ours, ["difference", "difference_lower", "difference_upper"]] = [0.1, 0.05, 0.15]
    filled = forest(changed, "full").count(" hollow")
    changed.loc[ours, "difference_lower"] = -0.05
    assert forest(changed, "full").count(" hollow") == filled + 2
    texts = _texts(forest(changed, "full"))
    assert texts.count("+0.100 [−0.050, 0.150]") == 2
    assert "← worse than imagenet" in texts


def test_forest_of_a_single_arm_is_empty(make):
    assert forest(make(arms=("imagenet",)), "full") == ""


def test_unknown_intervals_draw_no_bar(comparison):
    unknown = comparison.assign(lower=np.nan, upper=np.nan, difference_lower=np.nan, difference_upper=np.nan)
    for drawing in (curves(unknown, "full"), forest(unknown, "full")):
        assert 'class="bar"' not in drawing
        assert "nan" not in drawing


def test_names_are_escaped(make):
    drawing = curves(make(arms=("imagenet", "<b>&")), "full")
    assert "&lt;b&gt;&amp;" in drawing
    assert "<b>" not in drawing


def test_each_arm_has_its_own_mark(comparison):
    marks = {legend_mark(comparison, arm) for arm in ("random", "imagenet", "in_domain")}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.61, 0.98, ["0.6", "0.7", "0.8", "0.9", "1.0"]),
        (-0.03, 0.04, ["-0.04", "-0.02", "0.00", "0.02", "0.04"]),
        (0.9, 0.9, ["0.9000", "0.9002"]),
    ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
    ticks = ticks_for(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert [tick_text(tick, ticks) for tick in ticks] == expected
