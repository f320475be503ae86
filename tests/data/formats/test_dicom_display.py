"""Look-up tables and windows: against pydicom's own, and where writers and the standard part."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medssl.data.formats import READERS, Image, Item, Reject
from medssl.data.formats.options import ReadOptions

RAMP = np.arange(-6, 6, dtype=np.int16).reshape(3, 4) * 100
POSITIVE = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
XA = "1.2.840.10008.5.1.4.1.1.12.1"


def read(root, **options) -> Image | Reject:
    (found,) = READERS["dicom"].read(root, Item("image.dcm"), (), ReadOptions(**options))
    return found


def _lut(count: int, first: int, bits: int, data, vr: str = "US", explanation: str | None = None) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else vr, data)
    if explanation:
        item.LUTExplanation = explanation
    return item


def shown(image: Image) -> np.ndarray:
    """The image as its window shows it, in [0, 1]: what augment.window does, in its own words."""
    units = image.slope * image.pixels.astype(float) + image.intercept
    center, width = image.window
    place = np.clip((units - center) / width + 0.5, 0, 1)
    return np.interp(place, np.linspace(0, 1, 4096), image.voi_lut) / 65535 if image.voi_lut is not None else place


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_a_modality_lut_is_applied_to_the_pixels(write_dicom, syntax, signed, bits, kind):
    pixels = RAMP if signed else POSITIVE
    values = np.random.default_rng(bits).integers(1, 2**bits, 700)
    first = -300 if signed else 200
    written = pixels.astype(pixels.dtype.newbyteorder(">")) if syntax == ExplicitVRBigEndian else pixels
    root = write_dicom(
        written,
        syntax=syntax,
        ModalityLUTSequence=[_lut(700, first, bits, values.tolist())],
        PhotometricInterpretation="MONOCHROME1",
    )
    image = read(root)
    assert np.array_equal(image.pixels, values[np.clip(pixels.astype(int) - first, 0, 699)])
    assert image.pixels.dtype == kind
    assert (image.slope, image.intercept, image.modality_lut, image.inverted) == (1.0, 0.0, True, True)
    assert image.full_range == (0.0, 2.0**bits - 1)


def test_pydicom_agrees_on_the_modality_lut(write_dicom):
    values = np.random.default_rng(0).integers(0, 2**16, 700)
    root = write_dicom(POSITIVE, ModalityLUTSequence=[_lut(700, 200, 16, values.tolist())])
    dataset = pydicom.dcmread(root / "image.dcm")
    assert np.array_equal(read(root).pixels, apply_modality_lut(dataset.pixel_array, dataset))


def test_no_entries_are_65536(write_dicom):
    values = np.arange(65535, -1, -1, dtype="<u2")
    image = read(write_dicom(POSITIVE, ModalityLUTSequence=[_lut(0, 0, 16, values.tobytes())]))
    assert np.array_equal(image.pixels, 65535 - POSITIVE)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("count", [256, 255])
def test_entries_of_8_bits_two_to_a_word(write_dicom, syntax, count):
    values = np.random.default_rng(0).integers(0, 256, count).astype(np.uint8)
    data = values.tobytes() + b"\0" * (count % 2)
    if syntax == ExplicitVRBigEndian:
        data = np.frombuffer(data, "<u2").byteswap().tobytes()
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = read(write_dicom(pixels, syntax=syntax, ModalityLUTSequence=[_lut(count, 0, 8, data)]))
    assert np.array_equal(image.pixels.ravel()[:count], values)


@pytest.mark.parametrize(("bits", "found"), [(8, 12), (0, 12), (300, 12), (12, 12), (16, 16)])
def test_data_beyond_the_descriptors_bits_are_right(write_dicom, bits, found):
    values = [0, 5, 4095]
    image = read(write_dicom(POSITIVE, ModalityLUTSequence=[_lut(3, 0, bits, values)]))
    assert image.full_range == (0.0, 2.0**found - 1)


@pytest.mark.parametrize(
    "item",
    [Dataset(), _lut(4, 0, 16, [1, 2, 3]), _lut(40, 0, 16, b"\0\1" * 10)],
)
def test_damaged_tables_are_refused(write_dicom, item):
    assert read(write_dicom(POSITIVE, ModalityLUTSequence=[item])).reason == "modality_lut"
    assert read(write_dicom(POSITIVE, VOILUTSequence=[item])).reason == "voi_lut"


def test_the_modality_lut_of_fluoroscopy_may_lead_back_to_intensity(write_dicom):
    """PS3.3 C.8.7.1.1.2: of Pixel Intensity Relationship LOG and DISP it is not applied."""
    tables = {"ModalityLUTSequence": [_lut(2, 0, 16, [0, 65535])]}
    for relationship, applied in (("LOG", False), ("DISP", False), ("LIN", True)):
        image = read(write_dicom(POSITIVE, SOPClassUID=XA, PixelIntensityRelationship=relationship, **tables))
        assert image.modality_lut is applied
        assert np.array_equal(image.pixels, POSITIVE) is not applied
    assert read(write_dicom(POSITIVE, PixelIntensityRelationship="LOG", **tables)).modality_lut


def test_padding_is_found_before_the_modality_lut(write_dicom):
    values = list(range(1000, 0, -1))
    image = read(write_dicom(POSITIVE, ModalityLUTSequence=[_lut(1000, 100, 16, values)], PixelPaddingValue=0))
    # Stored 0 and 100 have the same output, but only 0 is padding.
    assert image.pixels[0].tolist() == [1, 1000, 900, 800]
    assert image.padding == pytest.approx(1 / 12)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_voi_lut_alone_is_the_window(write_dicom, syntax, bits):
    values = np.sort(np.random.default_rng(bits).integers(0, 2**bits, 4096))
    values[[0, -1]] = 0, 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, 4096, (50, 60)).astype(np.uint16)
    root = write_dicom(pixels, syntax=syntax, BitsStored=12, VOILUTSequence=[_lut(4096, 0, bits, values.tolist())])
    image = read(root)
    assert (image.window, image.window_function) == ((2047.5, 4095.0), "lut")
    assert (image.voi_lut.shape, image.voi_lut.dtype) == ((4096,), np.uint16)
    dataset = pydicom.dcmread(root / "image.dcm")
    if syntax == ExplicitVRLittleEndian and bits > 8:  # pydicom counts the entries of a table of 8 bits in 8 bits
        expected = apply_voi_lut(dataset.pixel_array, dataset)
        assert np.abs(shown(image) - expected / (2**bits - 1)).max() <= 1 / 65535
    assert np.abs(image.voi_lut - values * 65535 / (2**bits - 1)).max() <= 0.5


def test_a_voi_lut_is_over_units(write_dicom):
    """Its input is the output of the rescale, here from -1000 on, and its first value is negative."""
    table = _lut(2001, -1000, 16, np.linspace(0, 65535, 2001).astype(int).tolist())
    root = write_dicom(POSITIVE, RescaleSlope="2", RescaleIntercept="-1000", VOILUTSequence=[table])
    image = read(root)
    assert image.window == (0.0, 2000.0)
    expected = np.clip((2 * POSITIVE.astype(float) - 1000 + 1000) / 2000, 0, 1)
    assert np.abs(shown(image) - expected).max() < 1e-3


@pytest.mark.parametrize("count", [2, 3, 256, 65536])
def test_tables_of_any_length_are_resampled(write_dicom, count):
    values = np.linspace(65535, 0, count).astype(np.uint16)
    image = read(write_dicom(POSITIVE, VOILUTSequence=[_lut(count % 65536, 0, 16, values.astype("<u2").tobytes())]))
    assert image.window == ((count - 1) / 2, count - 1.0)
    assert np.abs(image.voi_lut - np.linspace(65535, 0, 4096)).max() <= 1


WINDOWS = {
    "WindowCenter": ["40", "450", "1"],
    "WindowWidth": ["350", "1500", "0.5"],
    "WindowCenterWidthExplanation": ["ABDOMEN", "Bone ", "BAD"],
}


@pytest.mark.parametrize(
    ("wanted", "window"),
    [
        (1, (40.0, 350.0)),
        (2, (450.0, 1500.0)),
        (3, "window 3 of 3"),
        (4, "window 4 of 3"),
        (0, "window 0 of 3"),
        (-1, "window -1 of 3"),
        ("bone", (450.0, 1500.0)),
        ("Abdomen", (40.0, 350.0)),
        ("lung", "none of 3 windows has the explanation that is asked for"),
        ("bad", "none of 3 windows has the explanation that is asked for"),
        ("lut", (40.0, 350.0)),
    ],
)
def test_the_window_that_is_asked_for(write_dicom, wanted, window):
    found = read(write_dicom(RAMP, **WINDOWS), window=wanted)
    if isinstance(window, str):
        assert found == Reject(Item("image.dcm"), "voi_lut", window)
    else:
        assert (found.window, found.window_function, found.voi_lut) == (window, "linear", None)


def test_a_lut_beside_windows(write_dicom):
    tables = [_lut(2, 0, 16, [0, 1]), _lut(3, 7, 16, [0, 1, 2], explanation="SOFT")]
    root = write_dicom(RAMP, VOILUTSequence=tables, **WINDOWS)
    assert read(root).window_function == "linear"
    assert read(root, window="lut").window == (0.5, 1.0)
    assert read(root, window="soft").window == (8.0, 2.0)
    assert read(root, window=2).window == (450.0, 1500.0)
    root = write_dicom(RAMP, VOILUTSequence=tables, WindowCenter="40", WindowWidth="0")
    assert read(root).window_function == "lut"


def test_no_window_at_all(write_dicom):
    for wanted in (1, "lut"):
        image = read(write_dicom(RAMP), window=wanted)
        assert (image.window, image.window_function, image.voi_lut) == (None, "linear", None)
    assert read(write_dicom(RAMP), window=2).reason == "voi_lut"
    assert read(write_dicom(RAMP), window="bone").reason == "voi_lut"


def test_pydicom_agrees_on_real_files(shared_data, pydicom_files):
    """Units and window of grey files without padding, against pydicom's pipeline."""
    paths = [*sorted((shared_data / "dicom" / "compressed").glob("MR1_UNC")), pydicom_files / "examples_overlay.dcm"]
    paths += [pydicom_files / "MR_small.dcm", pydicom_files / "dicomdirtests" / "98892003" / "MR1" / "4919"]
    for path in paths:
        dataset = pydicom.dcmread(path)
        (image,) = READERS["dicom"].read(path.parent, Item(path.name))
        units = apply_modality_lut(dataset.pixel_array, dataset).astype(float)
        assert np.array_equal(image.slope * image.pixels + image.intercept, units)
        if image.window is None:
            continue
        ours = np.clip((units - (image.window[0] - 0.5)) / (image.window[1] - 1) + 0.5, 0, 1)  # C.11.2.1.2.1
        theirs = apply_voi_lut(units, dataset)
        theirs = (theirs - theirs.min()) / np.ptp(theirs)
        ours = (ours - ours.min()) / np.ptp(ours)
        assert np.abs(ours - theirs).max() < 1e-2
