from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from medssl.data.archive import Archive
from medssl.data.groups import shared_images
from medssl.errors import StoreError
from medssl.report.archive_page import COLUMNS, render, write_archive_page
from medssl.report.archive_sample import views
from medssl.report.contact_sheet import png_of

SETTINGS = {"study": "trial", "input_size": 8, "window_rule": "auto", "seed": 0}
VOID = {"meta", "img", "br", "wbr"}


class _Page(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.sources: list[str] = []
        self.names: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names |= {name for name, _ in attrs}
        self.sources += [value for name, value in attrs if name == "src"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def archive(archive_of, ramp):
    images = [(np.roll(ramp, i, axis=0), {"vendor": "ge" if i % 2 else None, "study": f"s{i}"}) for i in range(6)]
    images[3][1]["flags"] = "secondary_capture"
    images.append((np.stack([ramp] * 3, axis=-1), {"modality": "SM", "source": "slides", "study_year": 2011}))
    images.append((np.stack([ramp] * 3), {"modality": "MR", "source": "brains", "kind": "volume"}))
    found = archive_of(images, {"finding": ["yes", "no"] * 3 + [None] * 2})
    found.rejects = pd.DataFrame(
        [("deadbeef00000000", "xray", "truncated", "3 of 4 bytes")], columns=["row_key", "source", "reason", "detail"]
    )
    return found


def _render(archive, **changes) -> str:
    tables = (archive.manifest, archive.splits, archive.rejects, archive.store)
    return render(*tables, data_digest="0123456789abcdef0123", **(SETTINGS | changes))


def test_the_page_is_well_formed_and_needs_nothing_from_outside(archive):
    page = _render(archive)
    parsed = _Page(page)
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not parsed.names & {"href", "onload", "onclick", "srcset"}
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert re.findall(r"https?://\S+", page.replace("http://www.w3.org/2000/svg", "")) == []
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_page_tells_what_the_archive_is_and_what_is_wrong_in_this_order(archive):
    page = _render(archive)
    text = _Page(page).text
    assert re.findall("<h2>(.*?)</h2>", page) == [
        "What is right and what is wrong",
        "Splits",
        "Labels",
        "As the network sees them",
        "Pixel values",
        "What the archive holds",
        "Files that were set aside",
        "Images to look at",
        "Identical and nearly identical images",
        "Patients under two keys",
        "To repeat it",
    ]
    assert "This page shows images of patients" in text
    for said in ("images 7", "volumes 1", "patients 8", "studies 6", "years of study 2011", "data sets 3", "files set aside 1"):
        assert said in text
    assert "medssl locate KEY" in text
    assert "deadbeef00000000" in text
    assert "0123456789abcdef" in text
    assert "0123456789abcdef0" not in text


def test_flagged_images_are_never_drawn(archive):
    page = _render(archive)
    drawn = {base64.b64decode(source.partition(",")[2]) for source in _Page(page).sources}
    everything = views(archive.store, archive.manifest, np.arange(8), 8, "auto")
    assert [png_of(view) in drawn for view in everything] == [True, True, True, False, True, True, True, True]
    assert "Left out: 1 image that may show text or a face." in page
    archive.manifest["flags"] = "ultrasound"
    alone = _render(archive)
    assert "<img" not in alone
    assert "There is no image to draw." in alone


def test_the_same_archive_gives_the_same_page_and_the_seed_chooses_the_images(archive_of, ramp):
    archive = archive_of([(np.roll(ramp, i), {}) for i in range(80)])
    assert _render(archive) == _render(archive)
    drawn = [set(re.findall(r"<span>([0-9a-f]{16})</span>", _render(archive, seed=seed))) for seed in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) == 48
    assert drawn[0] != drawn[1]


def test_everything_from_outside_is_escaped(archive):
    bad = '<img src=x onerror="alert(1)">&'
    for column in ("source", "modality", "vendor", "view", "syntax", "decoder", "label.finding"):
        archive.manifest[column] = bad
    archive.rejects["detail"] = bad
    page = _render(archive, study=bad)
    assert "<img src=x" not in page
    assert "onerror" not in _Page(page).names
    assert bad in _Page(page).text


def test_made_up_images_are_called_so(archive):
    text = _Page(_render(archive, synthetic=True)).text
    assert "The images are made, not of patients" in text
    assert "keep it where" not in text


def test_a_study_without_a_task_has_a_page(archive):
    archive.splits = archive.splits.assign(split="archive", label=pd.array([None] * 8, dtype="Int8"))
    archive.manifest = archive.manifest.drop(columns="label.finding")
    text = _Page(_render(archive)).text
    assert "No image has a label." in text
    assert "other data sets (pretraining only)" in text


def _opened(archive) -> Archive:
    return Archive(archive.folder, archive.folder, archive.store, {"data_digest": "0123456789abcdef0123"})


def test_the_page_is_written_from_the_files_of_the_archive(archive, tmp_path):
    archive.write()
    write_archive_page(tmp_path / "index.html", _opened(archive), **SETTINGS)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page == _render(archive, shared=shared_images(archive.manifest, np.array([[0, 1]]), archive.splits))
    assert "Under more than one patient, but not in two splits: 1 group of like images." in page
    assert str(tmp_path) not in page


def test_a_missing_table_is_named(archive, tmp_path):
    archive.write()
    (archive.folder / "splits.parquet").unlink()
    with pytest.raises(StoreError, match=r"splits.parquet: is missing"):
        write_archive_page(tmp_path / "index.html", _opened(archive), **SETTINGS)
    assert not (tmp_path / "index.html").exists()


def test_no_column_is_needed_beyond_those_that_are_read(archive):
    few = dataclasses.replace(archive, manifest=archive.manifest[[*COLUMNS, "label.finding"]])
    assert _render(few) == _render(archive)
