from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssl.report.archive_sample import draw, histograms, is_flagged, views


def _many(**columns) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    base = {"source": "xray", "modality": "CR", "vendor": None, "kind": "image", "channels": 1}
    return pd.DataFrame(base | {"patient": [f"p{i}" for i in range(rows)]} | columns, index=range(rows))


def test_a_rare_vendor_is_drawn_beside_a_frequent_one():
    manifest = _many(vendor=["ge"] * 990 + ["agfa"] * 5 + [None] * 5)
    rows = draw(manifest, np.arange(1000), 12, np.random.default_rng(0))
    assert manifest["vendor"].iloc[rows].value_counts(dropna=False).tolist() == [4, 4, 4]
    assert len(set(rows.tolist())) == 12


def test_patients_are_drawn_twice_only_when_all_were_drawn_once():
    manifest = _many(patient=["a"] * 50 + ["b"] * 50 + ["c"] * 50)
    drawn = draw(manifest, np.arange(150), 4, np.random.default_rng(0))
    assert sorted(manifest["patient"].iloc[drawn].value_counts().tolist()) == [1, 1, 2]


def test_a_draw_is_repeatable_and_keeps_to_the_rows_that_it_may_draw():
    manifest, allowed = _many(vendor=["ge", "agfa"] * 50), np.arange(0, 100, 3)
    first, again, other = (draw(manifest, allowed, 8, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert set(first) <= set(allowed.tolist())
    assert draw(manifest, allowed[:0], 8, np.random.default_rng(0)).tolist() == []


def test_flags_and_burned_in_are_both_flagged():
    manifest = pd.DataFrame({"flags": [None, "ultrasound", "", None], "burned_in": [None, None, False, True]})
    assert is_flagged(manifest).tolist() == [False, True, False, True]


def test_views_are_windowed_and_keep_colours_and_the_order_of_the_rows(archive_of, ramp):
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[..., 0] = 255
    archive = archive_of(
        [
            (ramp, {"window_center": 1000.0, "window_width": 10.0, "window_function": "linear"}),
            (colour, {}),
            (np.full((16, 16), 51, np.uint8), {}),
        ]
    )
    found = views(archive.store, archive.manifest, np.array([2, 1, 0]), 8, "auto")
    assert [one.shape for one in found] == [(1, 8, 8), (3, 8, 8), (1, 8, 8)]
    assert found[0] == pytest.approx(0.2, abs=1e-3)
    assert found[1][:, 4, 4].tolist() == [1, 0, 0]
    assert found[2].max() == 0


def test_of_a_volume_the_middle_slice_is_shown_with_the_right_side_on_the_left(archive_of):
    voxels = np.zeros((5, 16, 16), np.uint8)  # (head, front, right)
    voxels[2, 12:, 8:] = 200  # in front on the right
    voxels[2, :4, :8] = 100  # behind on the left
    voxels[3] = 255
    archive = archive_of([(voxels, {"kind": "volume"})])
    view = views(archive.store, archive.manifest, np.array([0]), 16, "full")[0][0]
    assert view[0, 0] == pytest.approx(200 / 255, abs=1e-3)
    assert view[15, 15] == pytest.approx(100 / 255, abs=1e-3)
    assert view[0, 15] == view[15, 0] == 0


def test_histograms_are_in_units_without_padding_and_each_image_counts_the_same(archive_of):
    scaled = {"modality": "CT", "slope": 2.0, "intercept": -1000.0, "full_low": -1000.0, "full_high": 1000.0}
    wide, square = np.full((4, 16), 100, np.uint8), np.full((16, 16), 400, np.uint16)
    wide[:, 0], square[0] = 0, 0
    archive = archive_of([(wide, scaled | {"vendor": "ge"}), (square, scaled | {"vendor": "ge"}), (square, scaled)])
    (found,) = histograms(archive.store, archive.manifest, "full", np.random.default_rng(0))
    assert (found.modality, found.kind, found.counts) == ("CT", "image", {"ge": 2, "": 1})
    assert found.window == (-1000, 1000)
    middle = (found.edges[:-1] + found.edges[1:]) / 2
    near = {value: found.shares["ge"][np.abs(middle - value) < 25].sum() for value in (-1000, -800, -200)}
    assert near == pytest.approx({-1000: 1 / 16, -800: 15 / 32, -200: 15 / 32}, abs=1e-6)
    assert found.shares[""].sum() == pytest.approx(1)
    assert found.outside == pytest.approx(0, abs=1e-9)


def test_what_lies_outside_of_the_axis_is_counted(archive_of):
    deep = {"full_low": 0.0, "full_high": 65535.0}
    usual = [(np.tile(np.arange(16, dtype=np.uint16) * 10, (16, 1)), deep) for _ in range(39)]
    archive = archive_of([*usual, (np.full((16, 16), 60000, np.uint16), deep)])
    (found,) = histograms(archive.store, archive.manifest, "percentile", np.random.default_rng(0))
    assert found.edges[-1] < 1000
    assert found.outside == pytest.approx(1 / 40)


def test_bins_are_whole_steps_so_that_no_bin_is_empty_between_full_ones(archive_of, ramp):
    archive = archive_of([(ramp, {})])
    (found,) = histograms(archive.store, archive.manifest, "full", np.random.default_rng(0))
    assert (found.shares[""] > 0).all()
    assert found.edges[0] == -0.5
    assert found.edges[-1] >= 255


def test_volumes_and_colour_have_histograms_of_their_own(archive_of, ramp):
    archive = archive_of(
        [(ramp, {}), (np.stack([ramp] * 3, axis=-1), {}), (np.stack([ramp] * 2), {"kind": "volume"})],
    )
    found = histograms(archive.store, archive.manifest, "auto", np.random.default_rng(0))
    assert sorted(one.kind for one in found) == ["colour image", "image", "volume"]
    assert [one.window for one in found if one.kind == "colour image"] == [None]
    assert all(sum(one.shares.values()).sum() == pytest.approx(1) for one in found)
