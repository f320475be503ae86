"""Files with seeded damage: reading gives an image or a named reason, and neither raises nor prints."""

from __future__ import annotations

import collections
import io

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import RLELossless

from medssl.data.formats import READERS, REASONS, Reject
from medssl.data.formats.options import ReadOptions

EACH = 60


def _survive(reader: str, content: bytes, folder, name: str, mutate, each: int = EACH) -> collections.Counter:
    """What became of `each` damaged copies of `content`."""
    outcomes: collections.Counter = collections.Counter()
    for number in range(each):
        generator = np.random.default_rng([len(content), number])
        (folder / name).write_bytes(mutate(content, generator))
        options = ReadOptions(channels=str(generator.choice(["grey", "rgb"])))
        kinds = set()
        for item in READERS[reader].find(folder):
            for found in READERS[reader].read(folder, item, (), options):
                kinds.add(found.reason if isinstance(found, Reject) else "read")
        assert kinds <= {"read", *REASONS}
        outcomes.update(kinds)
    return outcomes


@pytest.mark.parametrize("source", ["CT1_RLE", "CT1_JPLL", "CT1_JLSL", "CT1_J2KR", "CT1_UNC"])
def test_damaged_dicom(shared_data, tmp_path, capfd, mutate, source):
    content = (shared_data / "dicom" / "compressed" / source).read_bytes()
    outcomes = _survive("dicom", content, tmp_path, "x", mutate)
    assert outcomes.total() >= EACH
    assert outcomes["unreadable"] == 0
    assert len(outcomes) > 2
    assert capfd.readouterr() == ("", "")


PYDICOM_FILES = [
    "CT_small.dcm", "ExplVR_BigEnd.dcm", "JPEGLSNearLossless_08.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm", "examples_palette.dcm", "image_dfl.dcm", "rtstruct.dcm", "reportsi.dcm",
]  # fmt: skip


@pytest.mark.parametrize("source", PYDICOM_FILES)
def test_damaged_dicom_of_every_kind(pydicom_files, tmp_path, capfd, mutate, source):
    outcomes = _survive("dicom", (pydicom_files / source).read_bytes(), tmp_path, "x", mutate, each=25)
    assert outcomes.total() >= 25
    assert outcomes["unreadable"] == 0
    assert capfd.readouterr() == ("", "")


def test_damaged_frames_and_tables(write_dicom, enhanced, tmp_path, capfd, mutate):
    content = enhanced.read_bytes()
    enhanced.unlink()
    outcomes = _survive("dicom", content, tmp_path, "x", mutate, each=150)
    assert outcomes["unreadable"] == 0
    assert outcomes["read"] > 20
    assert capfd.readouterr() == ("", "")


def test_encapsulation_with_lengths_that_lie(write_dicom, tmp_path, capfd):
    """Every length and tag of the items, one after another."""
    frames = np.random.default_rng(0).integers(0, 9, (3, 8, 8)).astype(np.uint16)
    bits = {"bits_allocated": 16, "bits_stored": 16, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2"}
    shape = {"rows": 8, "columns": 8, "number_of_frames": 1, "samples_per_pixel": 1}
    streams = [get_encoder(RLELossless).encode(frame.tobytes(), index=0, **shape, **bits) for frame in frames]
    root = write_dicom(frames, syntax=RLELossless, NumberOfFrames="3", PixelData=encapsulate(streams))
    content = (root / "image.dcm").read_bytes()
    (root / "image.dcm").unlink()
    start = content.index(b"\xe0\x7f\x10\x00")
    for place in [*range(start, start + 48), *range(len(content) - 40, len(content))]:
        for value in (0, 0xFF):
            damaged = bytearray(content)
            damaged[place] = value
            (root / "x").write_bytes(damaged)
            for item in READERS["dicom"].find(root):
                kinds = {getattr(found, "reason", "read") for found in READERS["dicom"].read(root, item)}
                assert kinds <= {"read", *REASONS} - {"unreadable"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_damaged_rasters(tmp_path, capfd, mutate, kind, options):
    ramp = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(ramp).save(buffer, kind, **options)
    outcomes = _survive("raster", buffer.getvalue(), tmp_path, "x.png", mutate)
    assert outcomes.total() >= EACH
    assert outcomes["unreadable"] == 0
    assert len(outcomes) > 2
    assert capfd.readouterr() == ("", "")


def test_damaged_npz(tmp_path, capfd, mutate):
    buffer = io.BytesIO()
    arrays = {f"{split}_images": np.add.outer(np.arange(4), np.eye(6)).astype(np.uint8) for split in ("train", "val", "test")}
    labels = {f"{split}_labels": np.zeros((4, 1), np.uint8) for split in ("train", "val", "test")}
    np.savez_compressed(buffer, **arrays, **labels)
    outcomes = _survive("medmnist", buffer.getvalue(), tmp_path, "x.npz", mutate)
    assert outcomes["bad_npz"] > 10
    assert outcomes["unreadable"] == 0
    assert capfd.readouterr() == ("", "")
