"""Real DICOM files: codings of one image agree, a real MONOCHROME1, and files that a reader must survive."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings

import numpy as np
import pydicom
import pytest

from medssl.data.formats import READERS, Image, Item, Reject
from medssl.data.formats.dicom_file import HEADER_KEYWORDS, DicomFile
from medssl.data.formats.dicom_parse import parse
from medssl.data.formats.options import ReadOptions

READER = READERS["dicom"]

SERIES = (
    *(f"gantrytilting/001/IM-0001-000{number}.dcm" for number in range(1, 5)),
    *(f"notavolume/001/00{number}.dcm" for number in range(1, 5)),
    *(f"slicecount/001/IM-0001-000{number}-0001.dcm" for number in (1, 2)),
    *(f"sliceincrement/001/IM-0001-00{number:02}-0001.dcm" for number in range(7, 11)),
    *(f"sliceincrement/002/IM-0001-000{number}.dcm" for number in (1, 2, 3, 5)),
    *(f"sliceorientation/001/IM-0001-000{number}-0001{copy}.dcm" for number in (1, 2) for copy in ("", " 2")),
)
MALFORMED = {
    "ExplVR_BigEndNoMeta.dcm": "no_pixels",  # a plan; big endian, explicit, without preamble
    "ExplVR_LitEndNoMeta.dcm": "no_pixels",
    "JPEG-lossy.dcm": "unsupported_syntax",  # 12-bit JPEG Extended
    "MR1_JPLY_jpeg_extended_12bit.dcm": "unsupported_syntax",
    "MR_truncated.dcm": "truncated",
    "OT-PAL-8-face.dcm": "colour",
    "badVR.dcm": "no_pixels",  # a dose grid
    "bad_sequence.dcm": "image",
    "empty_charset_LEI.dcm": "no_pixels",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "image",  # ten frames, all there; only the end of their sequence is missing
    "html_page_saved_as_1.dcm": "not_dicom",
    "html_page_saved_as_2.dcm": "not_dicom",
    "meta_missing_tsyntax.dcm": "bad_header",
    "nested_priv_SQ.dcm": "bad_header",
    "no_meta.dcm": "not_dicom",  # begins with a byte that belongs to nothing
    "no_meta_group_length.dcm": "truncated",  # an RT Image that ends after three elements
    "priv_SQ.dcm": "truncated",  # an MR Image without pixels
    "reportsi_with_empty_number_tags.dcm": "no_pixels",
    "rtplan_truncated.dcm": "no_pixels",
    "rtstruct.dcm": "no_pixels",
    "test-SR.dcm": "no_pixels",
    **{f"series/{name}": "image" for name in SERIES},
}


@pytest.fixture
def compressed(shared_data):
    return shared_data / "dicom" / "compressed"


def _read(folder, name, **options) -> Image | Reject:
    (found,) = READER.read(folder, Item(name), (), ReadOptions(**options))
    return found


def _image(folder, name) -> Image:
    found = _read(folder, name)
    assert isinstance(found, Image), found
    return found


@pytest.mark.parametrize("coding", ["J2KR", "JLSL", "JPLL", "RLE"])
@pytest.mark.parametrize("source", ["CT1", "MR1"])
def test_lossless_codings_equal_the_uncompressed_reference(compressed, source, coding):
    reference, image = _image(compressed, f"{source}_UNC"), _image(compressed, f"{source}_{coding}")
    assert np.array_equal(image.pixels, reference.pixels)
    assert image.pixels.dtype == reference.pixels.dtype == np.int16
    assert (image.slope, image.intercept, image.window) == (reference.slope, reference.intercept, reference.window)
    assert image.decoder.split()[0] in {"J2KR": ("pylibjpeg-openjpeg", "gdcm"), "RLE": ("pillow",)}.get(coding, ("gdcm",))


@pytest.mark.parametrize("source", ["CT1", "MR1"])
def test_near_lossless_stays_within_four(compressed, source):
    values = []
    for name in (f"{source}_UNC", f"{source}_JLSN"):
        with (compressed / name).open("rb") as file:
            # Before padding is replaced: a value that has moved by 4 is no longer the padding value.
            values.append(DicomFile(file).frame(0).astype(int))
    assert 0 < np.abs(values[0] - values[1]).max() <= 4


@pytest.mark.parametrize("source", ["CT1", "MR1"])
def test_lossy_jpeg_2000_resembles_its_reference(compressed, source):
    reference, image = _image(compressed, f"{source}_UNC").pixels, _image(compressed, f"{source}_J2KI").pixels
    # Padding of CT1 (-2000) is blurred by the coding; the body is not.
    shown = reference > 0
    assert np.corrcoef(reference[shown], image[shown])[0, 1] > 0.99


def test_ct_padding_is_dark_and_units_are_hounsfield(compressed):
    raw = pydicom.dcmread(compressed / "CT1_UNC").pixel_array
    image = _image(compressed, "CT1_UNC")
    padding = raw == -2000
    assert padding.mean() > 0.1
    assert np.array_equal(image.pixels[~padding], raw[~padding])
    assert set(np.unique(image.pixels[padding])) == {raw[~padding].min()}
    assert image.slope * raw[~padding].min() + image.intercept == -1024.0


def test_what_cannot_be_read_is_refused_by_name(compressed):
    assert _read(compressed, "MR1_JPLY").reason == "unsupported_syntax"
    for coding in ("UNC", "J2KR", "J2KI", "RLE"):
        assert _read(compressed, f"US1_{coding}").reason == "colour"


def test_codings_of_a_colour_image_agree(compressed):
    reference = _read(compressed, "US1_UNC", channels="rgb").pixels
    assert (reference.shape, reference.dtype) == ((480, 640, 3), np.uint8)
    assert np.array_equal(reference, pydicom.dcmread(compressed / "US1_UNC").pixel_array)
    for coding in ("J2KR", "RLE"):
        assert np.array_equal(_read(compressed, f"US1_{coding}", channels="rgb").pixels, reference)
    lossy = _read(compressed, "US1_J2KI", channels="rgb").pixels.astype(int)
    assert np.abs(lossy - reference).mean() < 3


def test_grey_in_a_set_of_colour_images(compressed, shared_data):
    assert _read(compressed, "CT1_UNC", channels="rgb").reason == "unsupported_type"
    root = shared_data / "dicom" / "chest"
    grey, colour = (_read(root, "Fake_MONOHR1.dcm", channels=channels) for channels in ("grey", "rgb"))
    assert colour.pixels.shape == (1024, 1024, 3)
    assert not colour.inverted
    assert all(np.array_equal(colour.pixels[..., channel], 255 - grey.pixels) for channel in range(3))


def test_monochrome1_of_a_real_radiograph(shared_data):
    image = _image(shared_data / "dicom" / "chest", "RG1_J2KR.dcm")
    assert (image.pixels.shape, image.pixels.dtype) == ((1955, 1841), np.uint16)
    assert (image.pixels.min(), image.pixels.max()) == (874, 26479)
    assert image.inverted
    assert image.full_range == (0.0, 32767.0)
    assert (image.window, image.window_function) == ((15000.0, 30000.0), "linear")
    assert (image.header.modality, image.header.view, image.header.vendor) == ("CR", "PA", "philips")


def test_one_radiograph_under_two_polarities(shared_data):
    root = shared_data / "dicom" / "chest"
    (plain,) = [item.path for item in READER.find(root) if item.path.startswith("1.2.276")]
    image, inverted = _image(root, plain), _image(root, "Fake_MONOHR1.dcm")
    assert np.array_equal(image.pixels, inverted.pixels)
    assert (image.inverted, inverted.inverted) == (False, True)
    assert image.full_range == inverted.full_range == (0.0, 255.0)


def test_malformed_files_are_survived_and_named(shared_data, capfd):
    root = shared_data / "dicom" / "malformed"
    items = READER.find(root, ["**/*.dcm"])
    assert {item.path for item in items} == set(MALFORMED)
    outcomes = {}
    for item in items:
        kinds = {found.reason if isinstance(found, Reject) else "image" for found in READER.read(root, item)}
        (outcomes[item.path],) = kinds
    assert outcomes == MALFORMED
    assert capfd.readouterr() == ("", "")
    assert len(MALFORMED) == 43


def test_what_is_no_dicom_in_the_same_folder(shared_data):
    root = shared_data / "dicom" / "malformed"
    others = READER.find(root, exclude=["**/*.dcm"])
    assert {_read(root, item.path).reason for item in others} == {"not_dicom"}
    assert "manifest.csv" in [item.path for item in others]


def test_a_cut_file_is_never_an_other_image(compressed, tmp_path):
    for source in ("CT1_J2KR", "CT1_JLSL", "CT1_JPLL", "CT1_RLE", "CT1_UNC"):
        whole = (compressed / source).read_bytes()
        reference = _image(compressed, source).pixels
        for cut in (1, 4, 9, 40, len(whole) // 100, len(whole) // 10, len(whole) // 2, len(whole) - 2000):
            (tmp_path / "cut").write_bytes(whole[:-cut])
            (found,) = READER.read(tmp_path, Item("cut"))
            if isinstance(found, Image):
                assert np.array_equal(found.pixels, reference)
                assert cut <= 40
            else:
                assert found.reason == "truncated"


GREY_FILES = [
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm",
    "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
    "examples_overlay.dcm", "image_dfl.dcm", "dicomdirtests/77654033/CR1/6154", "dicomdirtests/98892001/CT2N/6293",
]  # fmt: skip


@pytest.mark.parametrize("name", GREY_FILES)
def test_pydicom_agrees_on_its_own_grey_files(pydicom_files, name):
    with (pydicom_files / name).open("rb") as file:
        stored = DicomFile(file).frame(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.dcmread(pydicom_files / name).pixel_array
    assert np.array_equal(stored, expected)


@pytest.mark.long
def test_headers_are_scanned_in_two_thirds_of_the_time_of_pydicom(shared_data):
    """Parsing up to the pixels, converting no value, by both; file by file, the least of several runs."""
    paths = [path for path in sorted((shared_data / "dicom").rglob("*")) if path.is_file() and pydicom.misc.is_dicom(path)]
    ours = theirs = 0.0
    for path in paths:
        times = []
        for _ in range(15):
            begun = time.perf_counter()
            pydicom.dcmread(path, stop_before_pixels=True)
            middle = time.perf_counter()
            with path.open("rb") as file:
                parse(file, HEADER_KEYWORDS)
            times.append((middle - begun, time.perf_counter() - middle))
        theirs += min(time for time, _ in times)
        ours += min(time for _, time in times)
    assert len(paths) > 50
    assert theirs > 1.5 * ours


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_the_largest_images_take_less_than_a_gigabyte(write_dicom):
    """Peak memory of a process that reads one, compressed by GDCM and not."""
    side = 2**12
    ramp = np.add.outer(np.arange(side), np.arange(side)).astype(np.uint16)
    root = write_dicom(ramp)
    # VmHWM, since ru_maxrss begins with what the process that started this one had.
    code = (
        "import re, sys; from pathlib import Path; from medssl.data.formats import READERS, Item;"
        "(image,) = READERS['dicom'].read(Path(sys.argv[1]), Item('image.dcm'));"
        "print(image.pixels.size, re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    pixels, kilobytes = map(int, run.stdout.split())
    assert pixels == side * side
    # Four times as many pixels are allowed; what a process has without any is counted once.
    assert 100_000 + 4 * (kilobytes - 100_000) < 2**20
