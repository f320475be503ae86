from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from medssl.report.collapse_figure import collapse_figure, side_by_side

SVG = "{http://www.w3.org/2000/svg}"


def history(steps=(50, 100, 150), **changes) -> list[dict]:
    """Checks of a healthy run; a value of `changes` may be a list, one a step."""
    base = {
        "loss": [-0.2, -0.5, -0.7],
        "grad_norm": 0.3,
        "z_std_sqrt_d": [0.999, 0.99, 1.003],
        "z_mean": 0.1,
        "z_effective_rank": [60.0, 50.0, 45.0],
        "z_rank_share": [0.5, 0.42, 0.38],
        "z_correlation": 0.3,
        "z_auc": 0.8,
        "z_alignment": [1.5, 1.0, 0.6],
        "z_uniformity": -2.5,
        "p_std_sqrt_d": 0.9,
        "p_mean": 0.3,
        "p_effective_rank": 12.0,
        "p_rank_share": 0.1,
        "features_effective_rank": 20.0,
        "features_rank_share": 0.6,
        "features_correlation": 0.25,
        "features_auc": 0.7,
    } | changes
    return [
        {"step": step} | {f"pretrain/{name}": value[i] if isinstance(value, list) else value for name, value in base.items()}
        for i, step in enumerate(steps)
    ]


def texts(drawing: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def curve(drawing: str, key: str) -> list[list[tuple[float, float]]]:
    """The points of each curve of a key."""
    paths = [path.get("d") for path in ElementTree.fromstring(drawing).iter(f"{SVG}path") if path.get("data-key") == key]
    return [[tuple(map(float, point)) for point in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)] for path in paths]


def test_the_file_stands_alone():
    drawing = collapse_figure(history(), "in_domain")
    root = ElementTree.fromstring(drawing)
    assert drawing.startswith("<svg ")
    assert float(root.get("width")) > 800
    assert root.find(f"{SVG}style") is not None
    assert root.find(f"{SVG}rect").get("fill") == "#fff"
    assert not re.search(r"href|url\(|@import|var\(", drawing)


def test_the_verdict_stands_in_the_title():
    assert texts(collapse_figure(history(), "in_domain"))[0] == "in_domain: healthy"
    flat = history(z_rank_share=[0.5, 0.2, 0.02])
    shown = texts(collapse_figure(flat, "in_domain"))
    assert shown[0] == "in_domain: dimensional collapse"
    assert "below 5%" in " ".join(shown)
    assert texts(collapse_figure(history(loss=[1.0, 2.0, 9.0]), "in_domain"))[0] == "in_domain: diverged"


def test_a_falling_figure_falls_and_a_later_step_stands_further_right():
    (points,) = curve(collapse_figure(history(), "x"), "loss")
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert [y for _, y in points] == sorted({y for _, y in points})  # downwards is more


def test_curves_lie_on_the_scale_of_their_thresholds():
    """A correlation of 0.6 lies half-way between the thresholds 0.5 and 0.7."""
    drawing = collapse_figure(history(z_correlation=0.6), "x")
    ((first, *_),) = curve(drawing, "z_correlation")
    limits = {
        "".join(element.itertext()): float(element.get("y")) - 4
        for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")
        if element.get("class") == "limit-text"
    }
    assert first[1] == pytest.approx((limits["0.5"] + limits["0.7"]) / 2, abs=0.2)
    assert {"z 0.5", "p 0.2", "2", "z 0.05", "z 0.2"} <= set(limits)


def test_panels_without_values_are_left_out():
    shown = texts(collapse_figure(history(), "x"))
    assert "Uniformity" in shown
    assert not [text for text in shown if "kNN" in text]
    fewer = [{key: value for key, value in record.items() if "/p_" not in key and "alignment" not in key} for record in history()]
    shown = texts(collapse_figure(fewer, "x"))
    assert "p" not in shown
    assert not [text for text in shown if "Alignment" in text]


def test_records_of_other_kinds_lie_between():
    """As in the log: losses more often than checks, the kNN once an epoch, NaN as a word."""
    mixed = [
        *history(),
        {"step": 75, "pretrain/loss": -0.4, "time/samples_per_s": 9.0},
        {"step": 150, "pretrain/knn_auroc": 0.8, "pretrain/knn_auroc_random": 0.7},
        {"text": "no step"},
    ]
    drawing = collapse_figure(mixed, "x")
    assert len(curve(drawing, "loss")[0]) == 4
    assert len(curve(drawing, "z_mean")[0]) == 3
    assert "better than those of a random network (AUROC 0.800 against 0.700)" in " ".join(texts(drawing))
    assert "nan" not in drawing.lower()


def test_a_table_and_bare_names_do_as_well():
    table = pd.DataFrame(history()).rename(columns=lambda name: name.removeprefix("pretrain/"))
    before = table.copy()
    assert collapse_figure(table, "x") == collapse_figure(history(), "x")
    pd.testing.assert_frame_equal(table, before)


def test_a_run_of_nan_is_drawn_as_diverged():
    unknown = history(**{name: [0.5, float("nan"), float("nan")] for name in ("z_rank_share", "z_effective_rank", "loss")})
    drawing = collapse_figure(unknown, "x")
    assert texts(drawing)[0] == "x: diverged"
    assert len(curve(drawing, "loss")[0]) == 1


def test_a_loss_that_breaks_after_the_last_check_is_told():
    drawing = collapse_figure([*history(), {"step": 160, "pretrain/loss": "NaN"}], "x")
    assert texts(drawing)[0] == "x: diverged"
    assert len(curve(drawing, "loss")[0]) == 3
    only = collapse_figure([{"step": 1, "pretrain/loss": 0.1, "pretrain/grad_norm": "Infinity"}], "x")
    assert "Gradient norm" not in texts(only)


def test_long_runs_keep_their_ends_and_a_bounded_size():
    steps = range(1, 50_001)
    drawing = collapse_figure([{"step": step, "loss": -step / 50_000} for step in steps], "x")
    (points,) = curve(drawing, "loss")
    assert len(points) <= 402
    (short,) = curve(collapse_figure([{"step": step, "loss": -step / 50_000} for step in (1, 50_000)], "x"), "loss")
    assert (points[0], points[-1]) == (short[0], short[-1])


def test_one_check_is_a_point():
    assert 'class="point"' in collapse_figure(history(steps=(50,)), "x")


def test_variants_have_their_own_colour_mark_and_verdict():
    flat = history(z_rank_share=[0.5, 0.2, 0.02])
    drawing = side_by_side({"SimSiam": history(), "no <predictor>": flat}, "SimSiam & co")
    shown = texts(drawing)
    assert shown[0] == "SimSiam & co"
    assert {"SimSiam: healthy", "no <predictor>: dimensional collapse"} <= set(shown)
    assert len(curve(drawing, "z_rank_share")) == 2
    groups = [g.get("class") for g in ElementTree.fromstring(drawing).iter(f"{SVG}g") if g.get("class")]
    assert {"arm0", "arm1"} <= set(groups)


def test_entries_of_a_long_legend_do_not_leave_the_figure():
    drawing = side_by_side({f"a variant with a long name, number {i}": history() for i in range(6)}, "x")
    places = [
        re.match(r"translate\(([\d.]+) ([\d.]+)\)", g.get("transform", ""))
        for g in ElementTree.fromstring(drawing).iter(f"{SVG}g")
    ]
    found = [tuple(map(float, place.groups())) for place in places if place]
    assert len(set(found)) == len(found) == 9
    assert max(x for x, _ in found) < 700


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="with a step"):
        collapse_figure([{"loss": 1.0}], "x")
    with pytest.raises(ValueError, match="at least one run"):
        side_by_side({}, "x")
