"""Opening DICOM files: with and without preamble, whatever else, and at a bounded cost."""

from __future__ import annotations

import io
import time
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from medssl.data.formats import READERS, Item, RefusedError, Reject, dicom_parse
from medssl.data.formats.dicom_file import HEADER_KEYWORDS, DicomFile
from medssl.data.formats.dicom_parse import HEAD, parse

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def read(root, name="image.dcm"):
    (found,) = READERS["dicom"].read(root, Item(name))
    return found


def _bare(root, syntax, start=8, **changes) -> None:
    """The data set of image.dcm without preamble and File Meta Information, in bare.dcm."""
    dataset = pydicom.dcmread(root / "image.dcm")
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, dataset)
    (root / "bare.dcm").write_bytes(buffer.getvalue())


def _end_of_meta(root) -> int:
    return 132 + 12 + pydicom.dcmread(root / "image.dcm", stop_before_pixels=True).file_meta.FileMetaInformationGroupLength


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_bare_data_set_is_read_if_its_syntax_shows(write_dicom, syntax):
    root = write_dicom(RAMP)
    _bare(root, syntax)
    image = read(root, "bare.dcm")
    assert np.array_equal(image.pixels, RAMP)
    assert image.syntax == syntax.name


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_bare_data_set_without_a_class_of_the_standard_is_not_dicom(write_dicom, syntax):
    root = write_dicom(RAMP)
    for sop_class in (None, "1.2.3", ExplicitVRLittleEndian):
        _bare(root, syntax, SOPClassUID=sop_class)
        assert read(root, "bare.dcm").reason == "not_dicom"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_guess_must_fit_the_length_of_the_pixels(write_dicom, syntax):
    root = write_dicom(RAMP)
    for pixels, reason in ((RAMP.tobytes() + b"\0" * 8, "bad_header"), (RAMP.tobytes()[:-2], "bad_header")):
        _bare(root, syntax, PixelData=pixels)
        assert read(root, "bare.dcm").reason == reason


def test_meta_information_without_preamble(write_dicom):
    root = write_dicom(RAMP)
    (root / "bare.dcm").write_bytes((root / "image.dcm").read_bytes()[132:])
    assert np.array_equal(read(root, "bare.dcm").pixels, RAMP)


def test_a_file_without_transfer_syntax(write_dicom):
    root = write_dicom(RAMP)
    content = (root / "image.dcm").read_bytes()
    element = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    assert element in content
    (root / "image.dcm").write_bytes(content.replace(element, b""))
    assert np.array_equal(read(root).pixels, RAMP)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html>" * 99,
        b"file,label\na.png,1\n" * 99,
        b"\x08\x00",
        b"\x08\x00\x05\x00CS",
        b"\x08\x00\x05\x00" + b"\xff" * 200,
        b"\x00\x08\x00\x05CS" + b"A" * 500,
        b"\x02\x00\x00\x00UL\x04\x00" + b"\0" * 300,
        b"\0" * 128 + b"DICM",
        b"PK\x03\x04" + b"\0" * 200,
    ],
)
def test_what_is_no_dicom(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert read(tmp_path, "x").reason in ("not_dicom", "no_pixels")


def test_random_bytes_are_not_dicom(tmp_path):
    generator = np.random.default_rng(0)
    for length in (10, 200, 5000):
        for _ in range(20):
            (tmp_path / "x").write_bytes(generator.bytes(length))
            assert read(tmp_path, "x").reason == "not_dicom"


def test_gzip_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"\x1f\x8b\x08\0" + b"\0" * 50)
    assert read(tmp_path, "x") == Reject(Item("x"), "not_dicom", "gzip: unpack it")


def test_a_directory_is_known_by_its_content(write_dicom, pydicom_files):
    assert read(write_dicom(RAMP, SOPClassUID=MediaStorageDirectoryStorage)).detail == "a directory"
    root = pydicom_files / "dicomdirtests"
    for path in sorted(root.glob("DICOMDIR*")):
        found = read(root, path.name)
        assert (found.reason, found.detail) == ("no_pixels", "a directory")


def test_headers_longer_than_the_first_read(write_dicom):
    """Whatever element the head ends in: a skipped one, a wanted one, an open sequence."""
    for size in range(HEAD - 700, HEAD + 60, 37):
        root = write_dicom(RAMP, PixelPaddingValue=100, ContentDescription="x" * 60, RedPaletteColorLookupTableData=b"\0" * size)
        assert (root / "image.dcm").stat().st_size > HEAD - 700
        image = read(root)
        assert np.array_equal(image.pixels, np.where(RAMP == 100, 0, RAMP))


def test_a_long_header_of_open_sequences(write_dicom):
    item = Dataset()
    item.PatientComments = "x" * 1000
    item.is_undefined_length_sequence_item = True
    root = write_dicom(RAMP)
    dataset = pydicom.dcmread(root / "image.dcm")
    dataset.ReferencedImageSequence = [item] * 60
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.save_as(root / "image.dcm")
    assert (root / "image.dcm").stat().st_size > HEAD
    assert np.array_equal(read(root).pixels, RAMP)


def test_pixels_are_not_read_with_the_header(write_dicom):
    root = write_dicom(np.zeros((2000, 2000), np.uint16))

    class Counted(io.FileIO):
        total = 0

        def read(self, count=-1):
            data = super().read(count)
            Counted.total += len(data)
            return data

    with Counted(root / "image.dcm") as file:
        parsed = parse(file, HEADER_KEYWORDS)
        assert "PixelData" not in parsed.dataset
        assert Counted.total <= HEAD
        assert parsed.pixels.length == 8_000_000
        assert parsed.pixels.offset + 8_000_000 == parsed.size


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(write_dicom, monkeypatch):
    root = write_dicom(RAMP, syntax=DeflatedExplicitVRLittleEndian)
    content = (root / "image.dcm").read_bytes()
    monkeypatch.setattr(dicom_parse, "MAX_INFLATED", 2**22)
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(50)) + packer.flush()
    meta = _end_of_meta(root)
    (root / "image.dcm").write_bytes(content[:meta] + bomb)
    assert len(bomb) < 10**5
    assert read(root).reason == "too_large"
    (root / "image.dcm").write_bytes(content[:meta] + b"\xff" * 100)
    assert read(root).reason == "undecodable"
    (root / "image.dcm").write_bytes(content[:-20])
    assert read(root).reason == "truncated"


def _nested(depth: int, *, implicit: bool) -> bytes:
    if implicit:
        return b"\x08\x00\x40\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    return b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("depth", [50, 5000, 100_000])
def test_nested_sequences_without_end_are_survived(write_dicom, syntax, depth):
    root = write_dicom(RAMP, syntax=syntax, SOPClassUID=None)
    content = (root / "image.dcm").read_bytes()
    start = _end_of_meta(root)
    (root / "image.dcm").write_bytes(content[:start] + _nested(depth, implicit=syntax == ImplicitVRLittleEndian))
    begun = time.monotonic()
    assert isinstance(read(root), Reject)
    assert time.monotonic() - begun < 10


def test_a_header_in_too_many_pieces(write_dicom, monkeypatch):
    root = write_dicom(RAMP)
    content = (root / "image.dcm").read_bytes()
    start = content.index(b"\x08\x00\x16\x00UI")
    many = b"\x08\x00\x01\x00UL\x04\x00\0\0\0\0" * (HEAD // 12 + 10)
    (root / "image.dcm").write_bytes(content[:start] + many + content[start:])
    assert np.array_equal(read(root).pixels, RAMP)
    monkeypatch.setattr(dicom_parse, "MAX_READS", 1000)
    assert read(root).reason == "too_large"
    monkeypatch.setattr(dicom_parse, "MAX_READS", 10**6)
    monkeypatch.setattr(dicom_parse, "MAX_HEADER", 1000)
    assert read(root).reason == "too_large"


def test_headers_need_no_pixels(write_dicom):
    root = write_dicom(RAMP, PixelData=None, PatientID="A", ImagePositionPatient=["1", "2", "3"])
    with (root / "image.dcm").open("rb") as file:
        source = DicomFile(file, ("SOPClassUID",), HEADER_KEYWORDS)
        (header,) = source.headers()
        assert (header.patient_id, header.position) == ("A", (1.0, 2.0, 3.0))
        assert header.tags == {"SOPClassUID": ComputedRadiographyImageStorage}
        with pytest.raises(RefusedError) as refusal:
            _ = source.layout
        assert refusal.value.reason == "truncated"
