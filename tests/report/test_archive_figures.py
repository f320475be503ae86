from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from medssl.report.archive_figures import histogram, name_of
from medssl.report.archive_sample import Histogram

SVG = "{http://www.w3.org/2000/svg}"


def _found(**changes) -> Histogram:
    shares = {"ge": np.array([0.64, 0.16, 0.2, 0.0]), "": np.array([0.0, 0.04, 0.96, 0.0])}
    values = {"shares": shares, "counts": {"ge": 30, "": 1200}, "window": (10.0, 30.0)} | changes
    return Histogram("CT", "image", np.array([0.0, 10.0, 20.0, 30.0, 40.0]), **values)


def _texts(drawing: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_the_figure_names_modality_unit_and_vendors():
    assert {"CT", "HU", "window", "ge (30)", "vendor unknown (1,200)"} <= set(_texts(histogram(_found())))


def test_heights_are_roots_of_the_shares():
    curve, _ = re.findall(r'<g class="arm1"><path class="line" d="M([^"]+)"', histogram(_found()))
    heights = [float(point.split(" ")[1]) for point in curve.split("L")][::2]
    ground = heights[3]
    above = [ground - height for height in heights]
    assert [above[1] / above[0], above[2] / above[0]] == pytest.approx([0.5, (0.2 / 0.64) ** 0.5], abs=0.01)


def test_a_vendor_alone_is_filled_and_unknown_ones_are_grey():
    alone = histogram(_found(shares={"": np.array([0.5, 0.5, 0, 0])}, counts={"": 3}))
    assert 'class="area"' in alone
    assert '<g class="arm0"><path class="area"' in alone
    assert 'class="area"' not in histogram(_found())


def test_windows_outside_of_the_axis_are_not_drawn():
    assert histogram(_found(window=(-500.0, 500.0))).count('class="zero"') == 0
    assert histogram(_found(window=(-500.0, 20.0))).count('class="zero"') == 1
    assert "window" not in _texts(histogram(_found(window=(-500.0, 500.0))))
    assert "window" not in _texts(histogram(_found(window=None)))


def test_names():
    assert name_of(_found()) == "CT"
    assert name_of(Histogram("", "volume", np.arange(3.0))) == "modality not in the file, volumes"
    assert name_of(Histogram("SM", "colour image", np.arange(3.0))) == "SM, colour"


def test_every_curve_has_a_colour_of_its_own():
    vendors = [*(f"v{i}" for i in range(7)), ""]
    found = _found(shares={v: np.full(4, 0.25) for v in vendors}, counts={v: 10 + i for i, v in enumerate(vendors)})
    drawing = histogram(found)
    colors = re.findall(r'<g class="(arm\d)"><path class="line" d="M\d+ \d+h18"/>', drawing)
    assert sorted(colors) == [f"arm{i}" for i in range(6)]
    named = [text for text in _texts(drawing) if text.startswith("v")]
    assert named == ["vendor unknown (17)", "v6 (16)", "v5 (15)", "v4 (14)", "v3 (13)", "v2 (12)"]
