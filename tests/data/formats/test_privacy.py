"""No file name and no value of a header reaches a reject, the screen, a warning or a log."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest

from medssl.data.formats import READERS, Image, Item, Reject

NAME = "Doe^Jane"
PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
BAD_ELEMENTS = {
    # Each quotes NAME where pydicom expects a number, a date, a UID or a coded term, and where it warns or raises.
    "rescale": {"RescaleSlope": "12345.25"},
    "intercept": {"RescaleIntercept": "12345.25"},
    "frames": {"NumberOfFrames": "12345678"},
    "window": {"WindowCenter": "12345.25", "WindowWidth": "54321.25"},
    "date": {"StudyDate": "19991231"},
    "age": {"PatientAge": "012Y"},
    "photometric": {"PhotometricInterpretation": "MONOCHRO"},
    "modality": {"Modality": "CTCTCTCT"},
    "syntax": {},
}


@pytest.mark.parametrize("case", sorted(BAD_ELEMENTS))
def test_a_name_in_the_file_and_in_its_path_stays_there(write_dicom, case, capfd, caplog):
    file_name = f"{NAME}.dcm"
    root = write_dicom(PIXELS, name=file_name, PatientName=NAME, PatientID=NAME, **BAD_ELEMENTS[case])
    content = (root / file_name).read_bytes()
    for value in BAD_ELEMENTS[case].values():
        assert value.encode() in content
        content = content.replace(value.encode(), NAME.encode()[: len(value)].ljust(len(value)))
    if case == "syntax":
        content = content.replace(b"1.2.840.10008.1.2.1\0", NAME.encode().ljust(20, b"\0"))
    (root / file_name).write_bytes(content)
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        (found,) = READERS["dicom"].read(root, Item(file_name))
        logging.getLogger("pydicom").warning("the level is as it was")
    if isinstance(found, Reject):
        assert "Doe" not in found.detail
    else:
        assert found.header.patient_id == NAME
        assert "Doe" not in repr({**vars(found.header), "patient_id": None})
        assert "Doe" not in found.syntax + found.decoder
    assert shown == []
    assert [record.message for record in caplog.records] == ["the level is as it was"]
    assert capfd.readouterr() == ("", "")


def test_damaged_streams_print_nothing(shared_data, tmp_path, capfd):
    generator = np.random.default_rng(0)
    root = shared_data / "dicom" / "compressed"
    for source in ("MR1_JPLL", "MR1_JLSL", "MR1_J2KR", "MR1_RLE"):
        content = np.frombuffer((root / source).read_bytes(), np.uint8).copy()
        content[generator.integers(len(content) // 2, len(content) - 10, 300)] = 0
        (tmp_path / "Doe").write_bytes(content.tobytes())
        (found,) = READERS["dicom"].read(tmp_path, Item("Doe"))
        if source in ("MR1_JPLL", "MR1_JLSL"):
            assert found.reason == "undecodable"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["dicom", "raster", "medmnist"])
def test_an_unforeseen_exception_is_told_by_its_class_alone(tmp_path, monkeypatch, name):
    (tmp_path / "Doe.png").write_bytes(b"")
    item = Item("Doe.png")
    module = {"dicom": "dicom._read_file", "raster": "raster._read_file", "medmnist": "medmnist._read_rows"}[name]

    def fail(*_):
        raise ZeroDivisionError("Doe^Jane")

    monkeypatch.setattr(f"medssl.data.formats.{module}", fail)
    assert list(READERS[name].read(tmp_path, item)) == [Reject(item, "unreadable", "ZeroDivisionError")]

    def exhaust(*_):
        raise MemoryError("Doe^Jane")

    monkeypatch.setattr(f"medssl.data.formats.{module}", exhaust)
    assert next(iter(READERS[name].read(tmp_path, item))).reason == "too_large"


def test_a_closed_stderr_is_no_obstacle(shared_data, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    (found,) = READERS["dicom"].read(shared_data / "dicom" / "compressed", Item("CT1_JPLL"))
    assert isinstance(found, Image)
