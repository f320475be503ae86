from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from medssl.report import confusion, control, efficiency, pairs_matrix, reliability, subgroups
from medssl.report.metrics import metric_of, metrics_of, primary_of
from medssl.report.numbers import grid

SVG = "{http://www.w3.org/2000/svg}"


def _cells(table: str) -> list[list[str]]:
    """The texts of a table's rows."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table)
    return [[re.sub(r"<[^>]+>", " ", cell).split() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_a_matrix_of_pairs_has_the_difference_above_and_p_below():
    row = {
        "mode": "linear",
        "budget": "40",
        "budget_patients": 40,
        "n_seeds": 2,
        "metric": "auroc",
        "p": 0.0004,
        "p_delong": math.nan,
    }
    row |= {
        "a": "random",
        "b": "imagenet",
        "difference": -0.1,
        "lower": -0.15,
        "upper": -0.05,
        "p_holm": 0.012,
        "verdict": "worse",
    }
    drawn = pairs_matrix.section(pd.DataFrame([row]))
    assert _cells(drawn)[1:] == [
        [["random"], ["–"], ["▼", "−0.100", "−0.150", "to", "−0.050"]],
        [["imagenet"], ["p", "0.012", "alone", "p", "&lt;", "0.001"], ["–"]],
    ]
    assert '<td class="worse">' in drawn
    assert "DeLong" not in drawn
    assert "DeLong p 0.030" in pairs_matrix.section(pd.DataFrame([row | {"p_delong": 0.03}]))


def test_pairs_that_are_not_told_apart_are_not_coloured(shown):
    pairs = shown()[1].pairs.assign(verdict="unclear")
    drawn = pairs_matrix.section(pairs)
    assert "▲" not in drawn
    assert "▼" not in drawn
    assert pairs_matrix.section(pairs.assign(verdict="too few")).count("test set too small") == len(pairs)
    assert pairs_matrix.section(None) == pairs_matrix.section(pairs.head(0)) == ""


@pytest.mark.parametrize(("p", "said"), [(0.0004, "p < 0.001"), (0.0421, "p 0.042"), (1.0, "p 1"), (math.nan, "p unknown")])
def test_how_p_is_written(p, said):
    assert pairs_matrix.probability(p) == said


@pytest.mark.parametrize(
    ("found", "needed", "lower", "upper", "said"),
    [
        (
            "reached",
            130.4,
            95,
            180,
            "imagenet needs about 130 labelled patients (95% interval 95 to 180) to match in_domain with 40.",
        ),
        (
            "reached",
            304,
            64,
            math.inf,
            "imagenet needs about 304 labelled patients (95% interval 64 to more than 412) to match in_domain with 40.",
        ),
        (
            "not reached",
            math.inf,
            199,
            math.inf,
            "imagenet needs more than the 412 labelled patients of the largest budget to match in_domain with 40 "
            "(95% interval 199 to more than 412).",
        ),
        ("at most", 40, 40, 40, "imagenet needs 40 labelled patients or fewer to match in_domain with 40."),
        (
            "unknown",
            math.nan,
            math.nan,
            math.nan,
            "How many labelled patients imagenet needs to match in_domain with 40 is unknown.",
        ),
    ],
)
def test_how_many_labels_it_takes_is_said_in_words(found, needed, lower, upper, said):
    row = {"arm": "in_domain", "reference": "imagenet", "patients": 40, "found": found}
    assert efficiency.match_sentence(row | {"needed": needed, "lower": lower, "upper": upper}, 412) == said


def test_power_is_a_table_of_two_digits(shown):
    table, extras = shown()
    power = extras.power[extras.power["mode"] == "linear"].assign(patients=[1234.0, 99.2, math.nan] * 9)
    drawn = efficiency.section(None, power, table)
    assert _cells(drawn)[1] == [["random", "and", "imagenet"], ["40"], ["1,300"], ["100"], ["?"]]
    assert "80% power" in drawn
    assert "this study has 150" in drawn
    assert efficiency.section(None, None, table) == ""


def test_a_confusion_matrix_stands_as_given():
    counts = {("a", "a"): 8, ("a", "b"): 2, ("b", "a"): 1.5, ("b", "b"): 3.5}
    rows = [
        {"arm": "x", "mode": "linear", "budget": "all", "target": "class", "truth": t, "called": c, "images": n, "share": n / s}
        for ((t, c), n), s in zip(counts.items(), (10, 10, 5, 5), strict=True)
    ]
    drawn = confusion.matrix(pd.DataFrame(rows), "x")
    assert _cells(drawn)[1:] == [[["a"], ["8", "80%"], ["2", "20%"]], [["b"], ["1.5", "30%"], ["3.5", "70%"]]]
    assert re.findall(r'class="number (\w+)" style="--share:(\d+)"', drawn) == [
        ("right", "80"),
        ("wrong", "20"),
        ("wrong", "30"),
        ("right", "70"),
    ]
    empty = pd.DataFrame(rows).assign(share=np.nan, images=0)
    assert "nan" not in confusion.matrix(empty, "x")


def test_only_the_largest_budget_is_drawn_and_named(shown):
    table, extras = shown("multiclass")
    drawn = confusion.section(extras.confusion, table)
    assert drawn.count('<table class="confusion"') == 4  # arms
    assert "Budget all." in drawn
    assert "normal" in drawn


def _diagram(rows: pd.DataFrame) -> ElementTree.Element:
    return ElementTree.fromstring(reliability.diagram(rows, "x", "Linear probe"))


def test_a_calibrated_model_lies_on_the_dashed_line():
    scores = np.array([0.05, 0.35, 0.65, 0.95])
    rows = pd.DataFrame(
        {"mean_score": scores, "share": scores, "n": 10, "bin": range(4), "scaled": False, "arm": "x", "target": "y"}
    )
    root = _diagram(rows.assign(lower=scores - 0.05, upper=scores + 0.05))
    zero = next(line for line in root.iter(f"{SVG}line") if line.get("class") == "zero")
    x1, y1, x2, y2 = (float(zero.get(name)) for name in ("x1", "y1", "x2", "y2"))
    path = next(path for path in root.iter(f"{SVG}path") if path.get("class") == "line").get("d")
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path):
        assert float(y) == pytest.approx(y1 + (float(x) - x1) / (x2 - x1) * (y2 - y1), abs=0.2)


def test_the_bars_show_where_the_scores_are():
    rows = pd.DataFrame(
        {"mean_score": [0.05, 0.95], "share": [0.1, 0.9], "n": [30, 10], "bin": [0, 1], "lower": 0.0, "upper": 1.0}
    )
    both = pd.concat([rows.assign(scaled=False), rows.assign(scaled=True, n=[20, 20])])
    root = _diagram(both.assign(arm="x", target="y"))
    heights = {}
    for kind in ("before", "after"):
        group = next(g for g in root.iter(f"{SVG}g") if g.get("class") == kind)
        heights[kind] = [float(rect.get("height")) for rect in group.iter(f"{SVG}rect")]
    assert heights["before"][0] == pytest.approx(3 * heights["before"][-1], abs=0.2)
    assert heights["after"][0] == pytest.approx(heights["after"][-1])
    assert heights["before"][1:-1] == [0.0] * 8


def test_of_many_targets_the_first_are_drawn_and_it_is_said(shown):
    table, extras = shown("multilabel")
    more = [extras.reliability.assign(target=f"{name}{i}") for i in range(2) for name in ("a", "b", "c")]
    drawn = reliability.section(pd.concat(more), table)
    assert "The first 4 of 6 targets are drawn" in drawn
    assert drawn.count('<svg class="figure"') == 4 * 4  # arms and targets


def test_small_groups_have_no_number_and_no_mark(shown):
    table, extras = shown()
    rows = extras.subgroups
    rows = rows[(rows["column"] == "age_band") & (rows["mode"] == "linear") & (rows["metric"] == "auroc")]
    small = rows[rows["too_small"].astype(bool)]
    assert len(small) == 4
    drawing = subgroups.forest(rows, table, "linear")
    assert drawing.count("too few patients to say anything") == 1
    assert drawing.count('class="point"') == len(rows) - len(small)
    drawn = subgroups.section(rows, table)
    assert drawn.count("too few patients</small>") == 4
    assert "nan" not in drawn.lower().replace("information", "")


def test_a_group_is_drawn_where_its_value_lies(shown):
    table, extras = shown()
    rows = extras.subgroups
    rows = rows[(rows["column"] == "sex") & (rows["mode"] == "linear") & (rows["metric"] == "auroc")]
    root = ElementTree.fromstring(subgroups.forest(rows, table, "linear"))
    ends = [
        re.match(r"M([\d.]+) [\d.]+L([\d.]+)", path.get("d")).groups()
        for path in root.iter(f"{SVG}path")
        if path.get("class") == "bar"
    ]
    assert np.corrcoef([float(low) for low, _ in ends], rows["lower"])[0, 1] == pytest.approx(1, abs=1e-3)
    assert np.corrcoef([float(high) for _, high in ends], rows["upper"])[0, 1] == pytest.approx(1, abs=1e-3)


def test_the_control_shows_both_probes_and_says_when_the_order_changes(shown):
    table, _ = shown()
    drawn = control.section(table)
    plain = table[(table["mode"] == "linear") & (table["metric"] == "auroc") & (table["budget"] == "40")]
    other = table[(table["mode"] == "linear_recalibrated") & (table["metric"] == "auroc") & (table["budget"] == "40")]
    rows = [row for row in _cells(drawn) if len(row) == 4][1:5]
    for row, a, b in zip(rows, plain.to_dict("records"), other.to_dict("records"), strict=True):
        assert row[1][0] == f"{a['value']:.3f}"
        assert row[2][0] == f"{b['value']:.3f}"
        assert float(row[3][0].replace("−", "-")) == pytest.approx(b["value"] - a["value"], abs=6e-4)
    turned = table.copy()
    turned.loc[(turned["mode"] == "linear_recalibrated") & (turned["budget"] == "40"), "value"] *= -1
    assert "changes the order of the arms&#x27; values with 40 labelled patients." in control.section(turned)
    assert control.section(table[table["mode"] != "linear"]) == ""


def test_the_grid_of_several_modes_names_each(shown):
    drawn = grid(shown()[0], ["linear", "full"])
    groups = [row[0] for row in _cells(drawn) if len(row) == 1]
    assert groups == [["Linear", "probe"], ["Full", "fine-tuning"]]
    assert len(_cells(drawn)) == 1 + 2 * (1 + 3)


def test_metrics_know_their_direction_and_family():
    assert metric_of("mae").lower_is_better
    assert metric_of("auroc/mass").target == "mass"
    assert metric_of("auroc/mass").title == "AUROC of mass"
    assert metric_of("quadratic_kappa").chance == 0
    assert metric_of("something_new").title == "something new"
    assert metric_of("mae").start == "Mean absolute error"


@pytest.mark.parametrize(
    ("kind", "primary"), [("binary", "auroc"), ("ordinal", "quadratic_kappa"), ("regression", "mae"), ("multilabel", "auroc")]
)
def test_the_primary_metric_is_the_marked_one(kind, primary, shown):
    table = shown(kind)[0]
    assert primary_of(table.iloc[::-1]) == primary
    assert all(metric.family != "other" for metric in metrics_of(table))
