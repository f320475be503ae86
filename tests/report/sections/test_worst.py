from __future__ import annotations

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medssl.report.worst import WorstImage, beside, local_page, section, worst_rows
from medssl.task import Outputs


def _table(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"arm": "a", "row_key": [f"k{i}" for i in range(count)], **columns})


def test_the_most_confident_errors_come_first():
    rows = _table(label=[0, 0, 1, 1, np.nan], score=[0.9, 0.7, 0.1, 0.8, 0.99], threshold=[0.5] * 5)
    found = worst_rows(rows, Outputs("binary", ("sick",)), set())
    assert found["row_key"].tolist() == ["k0", "k2", "k1"]  # 0.9 and 0.9 are ordered by key
    assert found["said"].tolist() == ["sick", "not sick", "sick"]
    assert found["label"].tolist() == ["not sick", "sick", "not sick"]
    assert found["sign"].tolist() == [1, -1, 1]
    assert found["confidence"].tolist() == pytest.approx([0.9, 0.9, 0.7])
    assert worst_rows(rows, Outputs("binary", ("sick",)), set(), count=1)["row_key"].tolist() == ["k0"]


def test_flagged_images_are_never_shown():
    rows = _table(label=[0, 0], score=[0.9, 0.7], threshold=[0.5] * 2)
    assert worst_rows(rows, Outputs("binary", ("sick",)), {"k0"})["row_key"].tolist() == ["k1"]


def test_draws_are_averaged_and_each_arm_has_its_own():
    once = _table(label=[0, 1], score=[0.9, 0.6], threshold=[0.5, 0.5])
    again = once.assign(score=[0.3, 0.2], threshold=0.4)
    other = once.assign(arm="b", score=[0.2, 0.1])
    found = worst_rows(pd.concat([once, again, other]), Outputs("binary", ("sick",)), set())
    assert list(zip(found["arm"], found["row_key"], strict=True)) == [("a", "k0"), ("a", "k1"), ("b", "k1")]
    assert found["confidence"].tolist() == pytest.approx([0.6, 0.6, 0.9])


def test_errors_of_every_kind():
    classes = {"score.x": [0.7, 0.2], "score.y": [0.2, 0.3], "score.z": [0.1, 0.5]}
    found = worst_rows(_table(label=[1.0, 2.0], **classes), Outputs("multiclass", ("x", "y", "z")), set())
    assert found[["row_key", "label", "said", "output"]].to_numpy().tolist() == [["k0", "y", "x", 0]]
    values = _table(label=[50.0, 60.0, np.nan], score=[52.0, 41.0, 1.0])
    found = worst_rows(values, Outputs("regression", ("age",)), set())
    assert found[["row_key", "label", "said", "sign"]].to_numpy().tolist() == [["k1", "60", "41", -1], ["k0", "50", "52", 1]]
    targets = {"label.p": [1.0, np.nan], "score.p": [0.1, 0.9], "threshold.p": [0.5, 0.5]}
    targets |= {"label.q": [0.0, 0.0], "score.q": [0.2, 0.8], "threshold.q": [0.5, 0.5]}
    found = worst_rows(_table(**targets), Outputs("multilabel", ("p", "q")), set())
    assert found[["row_key", "said", "output"]].to_numpy().tolist() == [["k0", "not p", 0], ["k1", "q", 1]]
    found = worst_rows(_table(**targets | {"threshold.p": [np.nan] * 2}), Outputs("multilabel", ("p", "q")), set())
    assert found["row_key"].tolist() == ["k1"]  # nothing is said of p


def _worst() -> list[WorstImage]:
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    return [
        WorstImage("a", "f00d", image, np.eye(8, dtype=np.float32), "normal", "pneumonia", 0.97),
        WorstImage("a", "beef", image, None, "pneumonia", "normal", 0.91),
    ]


def test_pixels_are_on_the_page_only_where_they_may():
    with_images, without = section(_worst(), images=True), section(_worst(), images=False)
    assert with_images.count("data:image/png;base64,") == 2
    assert "data:image" not in without
    assert "they stand in worst.html" in without
    for page in (with_images, without):
        assert "f00d" in page
        assert "beef" in page
    assert section([], images=True) == ""
    local = local_page("Chest", _worst())
    assert local.startswith("<!DOCTYPE html>")
    assert "not to be passed on" in local
    assert local.count("data:image/png;base64,") == 2


def test_image_and_overlay_stand_side_by_side():
    image = np.full((4, 4), 0.25, np.float32)
    overlay = np.zeros((4, 4), np.float32)
    overlay[0, 0] = 1
    both = beside(image, overlay)
    assert both.shape == (3, 4, 8)
    assert (both[:, :, :4] == 0.25).all()
    assert both[0, 0, 4] > 0.7
    np.testing.assert_allclose(both[:, 1:, 4:], 0.25)
    assert not beside(image, None)[:, :, 4:].any()
    assert beside(np.zeros((3, 4, 4), np.float32), overlay).shape == (3, 4, 8)


def test_a_large_image_is_shown_smaller():
    large = WorstImage("a", "f00d", np.zeros((900, 900), np.float32), None, "x", "y", 1.0)
    data = re.search(r"base64,([^\"]+)", section([large], images=True))[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (384, 192)
