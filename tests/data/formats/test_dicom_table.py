"""The tables of docs/formats.md say what reading real files gives. MEDSSL_WRITE_DOCS=1 writes them anew."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest

from medssl.data.formats import READERS, Image, Item
from medssl.data.formats.dicom_file import DicomFile
from medssl.data.formats.options import ReadOptions

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "formats.md"
WRITE = os.environ.get("MEDSSL_WRITE_DOCS") == "1"
HEAD = "| file | transfer syntax | decoder | result |\n|---|---|---|---|\n"

# Words of a reject that hold counts, or names of exceptions of the libraries, may change with their versions.
Row = tuple[str, str, str, str]


def row_of(root: Path, path: str) -> Row:
    """One file: its name, syntax, decoder without version, and what came of it."""
    options = ReadOptions()
    found = list(READERS["dicom"].read(root, Item(path), (), options))
    if not isinstance(found[0], Image) and found[0].reason == "colour":
        found = list(READERS["dicom"].read(root, Item(path), (), ReadOptions(channels="rgb")))
    images = [one for one in found if isinstance(one, Image)]
    rejects = sorted({one.reason + (f" ({one.detail})" if one.detail else "") for one in found if not isinstance(one, Image)})
    if not images:
        return path, "", "", f"**{rejects[0]}**"
    image = images[0]
    with (root / path).open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bits = DicomFile(file).layout.stored
    rows, columns = image.pixels.shape[:2]
    parts = [
        f"{rows} x {columns}",
        "RGB" if image.pixels.ndim == 3 else f"{bits} bits {'signed' if image.pixels.dtype.kind == 'i' else 'unsigned'}",
    ]
    parts += [f"{len(images)} frames"] * (len(images) > 1) + ["inverted"] * image.inverted
    parts += [f"padding {image.padding:.1%}"] * (image.padding > 0) + [f"**{reject}**" for reject in rejects]
    return path, image.syntax, image.decoder.rpartition(" ")[0], ", ".join(parts)


def rows_of(root: Path, paths: Iterable[str]) -> list[Row]:
    """A row a file; neighbours in one folder with one outcome share a row."""
    rows = [row_of(root, path) for path in paths]
    out: list[Row] = []
    for (folder, *rest), group in itertools.groupby(rows, key=lambda row: (row[0].rpartition("/")[0], *row[1:])):
        several = list(group)
        shared = len(several) > 1 and folder
        out += [(f"{folder}/ ({len(several)} files)", *rest)] if shared else several
    return out


def render(rows: list[Row]) -> str:
    """The rows as Markdown."""
    return HEAD + "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def _compare(name: str, rows: list[Row]) -> None:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    document = DOCUMENT.read_text()
    before, table = document.split(begin)[0], document.split(begin)[1].split(end)[0]
    if WRITE:
        DOCUMENT.write_text(before + begin + render(rows) + end + document.split(end)[1])
        return
    told = {line.split(" | ")[0] for line in table.splitlines()}
    # Another release of pydicom may carry other files; what both have must have come out the same.
    shared = [line for line in render(rows).splitlines() if line.split(" | ")[0] in told]
    assert set(shared) <= set(table.splitlines())
    assert len(shared) > 0.9 * len(table.splitlines())


def _files(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]


def test_the_files_of_pydicom(pydicom_files):
    _compare("pydicom", rows_of(pydicom_files, _files(pydicom_files)))


def test_real_files(shared_data):
    root = shared_data / "dicom"
    paths = [path for path in _files(root) if path.startswith(("compressed/", "chest/"))]
    # File names may hold the numbers of studies.
    rows = [(re.sub(r"1\.2\.[0-9.]+(?=\.dcm)", "(a number)", row[0]), *row[1:]) for row in rows_of(root, paths)]
    _compare("samples", rows)


def test_tables_cover_what_reading_must_do():
    """What the tables say of the files that decide whether reading is right."""
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")}
    assert "**unsupported_syntax" in lines["compressed/MR1_JPLY"]
    assert "inverted" in lines["chest/Fake_MONOHR1.dcm"]
    assert "inverted" in lines["chest/RG1_J2KR.dcm"]
    assert "inverted" not in lines["chest/(a number).dcm"]
    for coding in ("UNC", "J2KR", "RLE", "J2KI"):
        assert "480 x 640, RGB" in lines[f"compressed/US1_{coding}"]


@pytest.mark.parametrize("name", ["pydicom", "samples"])
def test_a_table_stands_between_its_markers(name):
    document = DOCUMENT.read_text()
    assert document.count(f"<!-- {name}: begin -->") == document.count(f"<!-- {name}: end -->") == 1
