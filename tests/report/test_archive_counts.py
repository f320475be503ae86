from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from medssl.report import archive_counts
from medssl.report.archive_counts import labels, percent, tables, tally, window_table, windows_used


def _cells(markup: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", markup)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return [[re.sub("<[^>]+>", " ", cell).strip() for cell in row] for row in cells]


def _card(markup: str, title: str) -> dict[str, str]:
    """Value: count of one card."""
    cards = [card for card in re.findall(r'<div class="card">.*?</table>', markup) if f'<p class="title">{title}</p>' in card]
    assert len(cards) == 1
    return {row[0]: row[2] for row in _cells(cards[0])}


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0%"), (1, "100%"), (0.001, "<1%"), (0.9991, ">99%"), (0.5, "50%"), (0.004999, "<1%")]
)
def test_a_share_is_never_rounded_to_none_or_all(share, said):
    assert percent(share) == said


def test_a_tally_names_the_most_frequent_and_counts_the_others_and_the_unknown():
    values = pd.Series(["a"] * 5 + ["b"] * 3 + ["c", "d", "e"] + [None] * 4)
    found = tally("Letters", values, {"a": "first"}, most=2)
    assert found.counts == [("first", 5), ("b", 3), ("3 others", 3)]
    assert found.unknown == 4


def test_counts_of_the_columns(archive_of, ramp):
    colour = np.stack([ramp] * 3, axis=-1)
    archive = archive_of(
        [
            (ramp, {"vendor": "ge", "age": 34, "sex": "F", "study_year": 2004, "padding": 0.2}),
            (ramp, {"vendor": "ge", "age": 39, "inverted": True, "flags": "burned_in,ultrasound", "study_year": 2001}),
            (ramp, {"age": 90, "full_low": -1024.0, "full_high": 3071.0, "flags": "ultrasound", "spacing_row": 0.15}),
            (colour, {"modality": "SM", "slope": 1.0}),
            (np.stack([ramp] * 3), {"kind": "volume", "modality": "MR"}),
        ]
    )
    found = tables(archive.manifest, "auto")
    assert _card(found, "Vendor") == {"ge": "2", "not in the file": "3"}
    assert _card(found, "Age, years") == {"30 to 39": "2", "90 and over": "1", "not in the file": "2"}
    assert list(_card(found, "Study year")) == ["2001", "2004", "not in the file"]
    assert _card(found, "Channels and bits") == {"grey, 8 bit": "3", "colour, 8 bit a channel": "1", "grey, 12 bit": "1"}
    assert _card(found, "High values are shown") == {"bright": "4", "dark (inverted)": "1"}
    assert _card(found, "Padding, share of the pixels") == {"none": "4", "10% to 50%": "1"}
    assert _card(found, "May show text or a face") == {"none": "3", "ultrasound": "2", "burned in": "1"}
    assert _card(found, "Slices of volumes") == {"2 to 3": "1"}
    assert _card(found, "Kind") == {"image": "4", "volume": "1"}
    assert _card(found, "Distance between rows, mm") == {"0.1 to 0.2": "1", "not in the file": "4"}
    assert "Not in any file: view, laterality." in found
    assert ["PNG", "pillow 12", "5", "100%"] in _cells(found)


def test_bits_follow_the_slope():
    manifest = pd.DataFrame({"slope": [0.5, -2.0], "full_low": [0.0, -2000.0], "full_high": [2047.5, 0.0], "channels": [1, 1]})
    assert archive_counts._depths(manifest).tolist() == ["grey, 12 bit", "grey, 10 bit"]


def test_rare_sizes_stand_together_by_powers_of_two(archive_of, ramp):
    sizes = [(512, 512)] * 30 + [(300 + i, 200) for i in range(20)] + [(1024, 700)]
    archive = archive_of([(ramp, {"rows": rows, "columns": columns}) for rows, columns in sizes])
    found = _card(tables(archive.manifest, "auto"), "Rows × columns, px")
    assert found["512 × 512"] == "30"
    assert sum(map(int, found.values())) == 51
    assert int(found["others, longer side 256 to 511"]) >= 14


def test_many_years_stand_together(archive_of, ramp):
    archive = archive_of([(ramp, {"study_year": year}) for year in range(1998, 2022)])
    found = _card(tables(archive.manifest, "auto"), "Study year")
    assert found == {"1995 to 1999": "2", **{f"{y} to {y + 4}": "5" for y in (2000, 2005, 2010, 2015)}, "2020 to 2024": "2"}


def test_the_window_that_is_used_is_told(archive_of, ramp):
    own = {"window_center": 40.0, "window_width": 400.0}
    deep = {"full_high": 4095.0}
    archive = archive_of(
        [
            (ramp, own | {"window_function": "linear"}),
            (ramp, own | {"window_function": "lut", "lut": 0}),
            (ramp, {}),
            (ramp, deep),
            (np.stack([ramp] * 3, axis=-1), {}),
        ]
    )
    assert windows_used(archive.manifest, "auto").tolist() == ["file", "lut", "full", "percentile", "colour"]
    assert windows_used(archive.manifest, "percentile").tolist() == ["percentile"] * 4 + ["colour"]
    rows = _cells(window_table(archive.manifest, "auto"))
    assert ["CR", "the file&#x27;s window", "1", "40", "400"] in rows
    assert len(rows) == 5


def test_labels_are_counted_by_class_patient_and_split_over_the_sources_that_have_them(archive_of, ramp):
    images = [(ramp, {"patient": patient}) for patient in ("a", "a", "b", "c")] + [(ramp, {"source": "other"})] * 2
    targets = {"finding": ["yes", "yes", "no", None, None, None], "nothing": [None] * 6}
    archive = archive_of(images, targets)
    archive.splits.loc[2, "split"] = "test"
    rows = _cells(labels(archive.manifest, archive.splits))
    assert rows[0] == ["class", "images", "share", "patients", "in train", "in test"]
    assert rows[1] == ["finding (of xray)"]
    assert rows[2:] == [
        ["yes", "2", "50%", "1", "2", "0"],
        ["no", "1", "25%", "1", "0", "1"],
        ["unknown", "1", "25%", "1", "1", "0"],
    ]


def test_labels_that_are_numbers_are_one_row(archive_of, ramp):
    archive = archive_of([(ramp, {})] * 30, {"age": [str(20 + i) for i in range(29)] + [None]})
    rows = _cells(labels(archive.manifest, archive.splits))
    assert [row[:2] for row in rows[2:]] == [["numbers from 20 to 48", "29"], ["unknown", "1"]]


def test_without_labels_it_is_said(archive_of, ramp):
    archive = archive_of([(ramp, {})])
    assert "No image has a label." in labels(archive.manifest, archive.splits)
