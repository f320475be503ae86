"""From files to rows: order kept, content hashed, and a decoder that brings its process down harms one file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from medssl.data.formats import READERS, Image, Item, Reject
from medssl.data.reading import describe, exact_hash, read_archive

CRASHING = """
import os
from medssl.data.formats import READERS

class Crashing:
    name = "crashing"

    def read(self, root, item, tags=()):
        if item.path in ("05.png", "33.png"):
            os._exit(139)  # what a segmentation fault in a decoder does
        return READERS["raster"].read(root, item, tags)
"""


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        PillowImage.fromarray(np.random.default_rng(number).integers(0, 255, (9, 7)).astype(np.uint8)).save(
            tmp_path / f"{number:02}.png"
        )
    return tmp_path


def items():
    return [Item(f"{number:02}.png") for number in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_everything_is_read_in_order(folder, workers):
    found = [one for chunk in read_archive(READERS["raster"], folder, items(), [], 16, workers) for one in chunk]
    assert [one.item.path for one in found] == [item.path for item in items()]


def test_a_process_that_dies_costs_one_file(folder, tmp_path, monkeypatch):
    (tmp_path / "crashing_reader.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    from crashing_reader import Crashing

    found = [one for chunk in read_archive(Crashing(), folder, items(), [], 16, 2) for one in chunk]
    assert [one.item.path for one in found] == [item.path for item in items()]
    lost = [(one.item.path, one.reason, one.detail) for one in found if isinstance(one, Reject)]
    assert lost == [(path, "unreadable", "the process that read it died") for path in ("05.png", "33.png")]


def test_identical_values_have_one_hash_whatever_their_type():
    image = np.arange(12).reshape(3, 4)
    assert len({exact_hash(image.astype(kind)) for kind in (np.uint8, np.int16, np.uint16, np.int32)}) == 1
    assert exact_hash(image.astype(np.uint8)) != exact_hash(image.reshape(4, 3).astype(np.uint8))


def test_percentiles_are_in_units_and_rise_even_with_a_negative_slope():
    image = Image(np.arange(1000, dtype=np.uint16).reshape(25, 40), slope=-2.0, intercept=10.0, full_range=(-131060.0, 10.0))
    row = describe(image)
    values = [row[name] for name in ("p00_5", "p01", "p50", "p99", "p99_5")]
    assert values == sorted(values)
    assert row["p50"] == pytest.approx(10 - 2 * 499.5)
    assert (row["full_low"], row["full_high"]) == (-131060.0, 10.0)
