"""DICOM with known pixels: bits, signs, maps, polarity, padding, headers and what is refused."""

from __future__ import annotations

import datetime
import tarfile
import zipfile

import gdcm
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
)

from medssl.data.formats import READERS, Image, Item, Reject
from medssl.data.formats.dicom_header import age_of, date_of
from medssl.data.formats.dicom_terms import vendor_of
from medssl.data.formats.options import ReadOptions
from medssl.errors import CardError

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100


def read(root, name="image.dcm", tags=(), **options) -> Image | Reject:
    (found,) = READERS["dicom"].read(root, Item(name), tags, ReadOptions(**options))
    return found


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", "<i2", "<u4", "<i4"])
def test_whole_words_are_read_exactly(write_dicom, dtype):
    limits = np.iinfo(dtype)
    # Unsigned 32-bit values are read as far as they fit into int32.
    pixels = np.array([[limits.min, min(limits.max, 2**31 - 1)], [0, 1]], dtype)
    image = read(write_dicom(pixels))
    assert np.array_equal(image.pixels, pixels.astype(np.int64))
    assert image.pixels.dtype == {"u1": np.uint8, "<u2": np.uint16, "<u4": np.int32, "<i4": np.int32}.get(dtype, np.int16)
    assert image.full_range == (limits.min, limits.max)
    assert (image.slope, image.intercept, image.window, image.inverted) == (1.0, 0.0, None, False)
    assert image.decoder.startswith("pydicom ")
    assert image.syntax == "Explicit VR Little Endian"


def test_unsigned_values_beyond_int32_are_refused(write_dicom):
    assert read(write_dicom(np.array([[0, 2**31]], np.uint32))).reason == "unsupported_type"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_little_endian_syntaxes(write_dicom, syntax):
    assert np.array_equal(read(write_dicom(RAMP, syntax=syntax)).pixels, RAMP)


def test_big_endian(write_dicom):
    image = read(write_dicom(RAMP.astype(">u2"), syntax=ExplicitVRBigEndian))
    assert np.array_equal(image.pixels, RAMP)
    assert image.pixels.dtype == np.uint16
    assert image.pixels.dtype.isnative


def test_overlays_above_bits_stored_do_not_leak(write_dicom):
    values = np.array([[0, 1, 2047], [2048, 4095, 7]], np.uint16)
    overlay = np.array([[1, 0, 15], [8, 0, 3]], np.uint16) << 12
    image = read(write_dicom(values | overlay, BitsStored=12))
    assert np.array_equal(image.pixels, values)
    assert image.full_range == (0.0, 4095.0)


def test_signed_values_below_full_width_get_their_sign_back(write_dicom):
    values = np.array([[-2048, -1, 0], [1, 2047, -7]], np.int16)
    without_sign = values.astype(np.uint16) & 0x0FFF
    image = read(write_dicom(without_sign | 0x5000, BitsStored=12, PixelRepresentation=1))
    assert np.array_equal(image.pixels, values)
    assert image.pixels.dtype == np.int16
    assert image.full_range == (-2048.0, 2047.0)


def test_high_bit_above_bits_stored(write_dicom):
    values = np.array([[0, 1, 4095], [2048, 100, 7]], np.uint16)
    image = read(write_dicom(values << 4 | 0x9, BitsStored=12, HighBit=15))
    assert np.array_equal(image.pixels, values)


@pytest.mark.parametrize("stored", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_lossless_codings_of_every_depth_are_exact(write_dicom, stored, signed, syntax):
    generator = np.random.default_rng(stored)
    lowest = -(1 << stored - 1) if signed else 0
    values = generator.integers(lowest, lowest + (1 << stored), (24, 17)).astype(np.int16 if signed else np.uint16)
    root = write_dicom(values, name="plain.dcm", BitsStored=stored)
    source = gdcm.ImageReader()
    source.SetFileName(str(root / "plain.dcm"))
    assert source.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(source.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(root / "image.dcm"))
    writer.SetFile(source.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    image = read(root)
    assert np.array_equal(image.pixels, values)
    assert image.full_range == (lowest, lowest + (1 << stored) - 1)


@pytest.mark.parametrize(("slope", "full_range"), [("2", (-1000.0, 7190.0)), ("-2", (-9190.0, -1000.0))])
def test_rescale_is_kept_as_the_map(write_dicom, slope, full_range):
    image = read(write_dicom(RAMP, BitsStored=12, RescaleSlope=slope, RescaleIntercept="-1000"))
    assert (image.slope, image.intercept) == (float(slope), -1000.0)
    assert image.full_range == full_range
    assert np.array_equal(image.pixels, RAMP)


@pytest.mark.parametrize("bad", ["0", "1\\2", "nan", "inf"])
def test_a_slope_that_is_no_slope_is_refused(write_dicom, bad):
    root = write_dicom(RAMP, RescaleSlope="7.25")
    path = root / "image.dcm"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"7.25", bad.ljust(4).encode()))
    found = read(root)
    assert (found.reason, "RescaleSlope" in found.detail) == ("bad_header", True)


@pytest.mark.parametrize(
    ("elements", "window", "function"),
    [
        ({"WindowCenter": ["40", "450"], "WindowWidth": ["350", "1500"]}, (40.0, 350.0), "linear"),
        ({"WindowCenter": "0.5", "WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"}, (0.5, 0.5), "linear_exact"),
        ({"WindowCenter": "40", "WindowWidth": "350", "VOILUTFunction": "SIGMOID"}, (40.0, 350.0), "sigmoid"),
        ({"WindowCenter": "40", "WindowWidth": "0.5"}, None, "linear"),
        ({"WindowCenter": "40", "WindowWidth": "0", "VOILUTFunction": "SIGMOID"}, None, "linear"),
        ({"WindowCenter": "40", "WindowWidth": "350", "VOILUTFunction": "MAGIC"}, None, "linear"),
        ({"WindowCenter": "40"}, None, "linear"),
    ],
)
def test_the_first_window_and_its_function(write_dicom, elements, window, function):
    image = read(write_dicom(RAMP, **elements))
    assert (image.window, image.window_function) == (window, function)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),  # one inversion said twice, PS3.3 C.8.11.3.1.2
    ],
)
def test_polarity(write_dicom, photometric, shape, inverted):
    image = read(write_dicom(RAMP, PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    assert image.inverted is inverted
    assert np.array_equal(image.pixels, RAMP)


@pytest.mark.parametrize(
    ("photometric", "slope", "fill"),
    [("MONOCHROME2", "1", 0), ("MONOCHROME1", "1", 1100), ("MONOCHROME2", "-1", 1100), ("MONOCHROME1", "-1", 0)],
)
def test_padding_becomes_the_extreme_that_is_shown_dark(write_dicom, photometric, slope, fill):
    pixels = RAMP.copy()
    pixels[0, 1], pixels[2, 0] = 5000, 5003
    elements = {"PhotometricInterpretation": photometric, "RescaleSlope": slope}
    image = read(write_dicom(pixels, PixelPaddingValue=5000, PixelPaddingRangeLimit=5003, **elements))
    expected = RAMP.copy()
    expected[0, 1] = expected[2, 0] = fill
    assert np.array_equal(image.pixels, expected)


def test_signed_padding_however_its_value_is_written(write_dicom):
    pixels = np.array([[-2000, -900], [50, 60]], np.int16)
    for value in (-2000, 63536):
        root = write_dicom(pixels)
        # Explicit VR: the same 16 bits as SS and as US.
        vr = "SS" if value < 0 else "US"
        dataset_bytes = (root / "image.dcm").read_bytes()
        marker = b"\x28\x00\x20\x01"  # (0028,0120)
        element = marker + vr.encode() + b"\x02\x00" + (value & 0xFFFF).to_bytes(2, "little")
        start = dataset_bytes.index(b"\xe0\x7f\x10\x00")
        (root / "image.dcm").write_bytes(dataset_bytes[:start] + element + dataset_bytes[start:])
        assert np.array_equal(read(root).pixels, [[-900, -900], [50, 60]])


def test_padding_alone_is_constant(write_dicom):
    assert read(write_dicom(np.full((2, 2), 9, np.uint16), PixelPaddingValue=9)).reason == "constant"
    assert read(write_dicom(np.array([[9, 9], [9, 3]], np.uint16), PixelPaddingValue=9)).reason == "constant"
    assert read(write_dicom(np.full((2, 2), 9, np.uint16))).reason == "constant"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "unsupported_type"),
        ({"SamplesPerPixel": 2}, "bad_header"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "bad_header"),
        ({"PhotometricInterpretation": "CMYK", "SamplesPerPixel": 4}, "unsupported_type"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "bad_header"),
        ({"PhotometricInterpretation": None}, "bad_header"),
        ({"NumberOfFrames": "0"}, "bad_header"),
        ({"NumberOfFrames": "2000000"}, "too_large"),
        ({"PresentationLUTSequence": [Dataset()]}, "presentation_lut"),
        ({"Rows": 60000, "Columns": 60000}, "too_large"),
        ({"Modality": "SEG"}, "no_pixels"),
        ({"Modality": "RTDOSE"}, "no_pixels"),
        ({"PixelData": None}, "truncated"),
        ({"PixelData": None, "FloatPixelData": b"\0" * 48}, "constant"),
        ({"PixelData": None, "FloatPixelData": b"\0" * 40}, "truncated"),
        ({"PixelData": RAMP.tobytes()[:-2]}, "truncated"),
        ({"PixelData": RAMP.tobytes() * 2}, "bad_header"),
        ({"PixelData": b""}, "truncated"),
        ({"Rows": 0}, "bad_header"),
        ({"Rows": None}, "bad_header"),
        ({"Columns": [2, 2]}, "bad_header"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"BitsStored": 17}, "bad_header"),
        ({"BitsStored": 12, "HighBit": 10}, "bad_header"),
        ({"BitsStored": None}, "bad_header"),
        ({"PixelRepresentation": None}, "bad_header"),
        ({"PixelRepresentation": 2}, "bad_header"),
        ({"BitsAllocated": 24, "BitsStored": 24}, "unsupported_type"),
        ({"BitsAllocated": 64}, "unsupported_type"),
    ],
)
def test_refused_by_name(write_dicom, elements, reason):
    assert read(write_dicom(RAMP, **elements)).reason == reason


def test_trailing_padding_is_not_an_error(write_dicom):
    assert np.array_equal(read(write_dicom(RAMP, PixelData=RAMP.tobytes() + b"\0" * 10)).pixels, RAMP)


def test_files_that_are_not_dicom(tmp_path):
    for name, content in {"empty": b"", "page": b"<html>" * 99, "prefix": b"\0" * 128 + b"DICM", "text": b"x" * 132}.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path, name).reason in ("not_dicom", "no_pixels")
    assert read(tmp_path, "missing").reason == "unreadable"


def test_private_syntax_is_refused_without_its_uid(write_dicom):
    root = write_dicom(RAMP)
    content = (root / "image.dcm").read_bytes()
    (root / "image.dcm").write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0"))
    assert read(root) == Reject(Item("image.dcm"), "unsupported_syntax", "a private transfer syntax")


def test_header(write_dicom):
    root = write_dicom(
        RAMP,
        PatientID=" A-17 ",
        IssuerOfPatientID="ward",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.4",
        ViewPosition="pa",
        Laterality="L",
        ImageLaterality="R",
        Manufacturer="GE Healthcare",
        PixelSpacing=["0.5", "0.25"],
        ImagePositionPatient=["1", "-2", "3.5"],
        ImageOrientationPatient=["1", "0", "0", "0", "0.6", "-0.8"],
        SpacingBetweenSlices="2.5",
        SliceThickness="3",
        StudyDate="20200229",
        PatientAge="034Y",
        PatientSex="F",
        BurnedInAnnotation="YES",
        BodyPartExamined="CHEST",
        ImageType=["ORIGINAL", "PRIMARY"],
    )
    header = read(root, tags=["BodyPartExamined", "ImageType", "KVP", "Rows"]).header
    assert (header.patient_id, header.issuer) == ("A-17", "ward")
    assert (header.study_uid, header.series_uid, header.instance_uid) == ("1.2.3", "1.2.4", "2.25.1")
    assert (header.modality, header.view, header.laterality, header.vendor) == ("CR", "PA", "R", "ge")
    assert (header.spacing, header.spacing_kind) == ((0.5, 0.25), "pixel")
    assert header.position == (1.0, -2.0, 3.5)
    assert header.orientation == (1.0, 0.0, 0.0, 0.0, 0.6, -0.8)
    assert header.spacing_slice == 2.5
    assert header.flags == ("burned_in",)
    assert header.study_date == datetime.date(2020, 2, 29)
    assert (header.age_years, header.sex, header.burned_in, header.frame) == (34, "F", True, 0)
    assert header.tags == {"BodyPartExamined": "CHEST", "ImageType": "ORIGINAL\\PRIMARY", "Rows": "3"}


def test_free_text_in_coded_fields_is_not_passed_on(write_dicom):
    root = write_dicom(RAMP, ViewPosition="SMITH", Laterality="X", PatientSex="?", Modality="JONES", BurnedInAnnotation="Q")
    header = read(root).header
    assert (header.view, header.laterality, header.sex, header.modality, header.burned_in) == (None,) * 5


@pytest.mark.parametrize(
    ("pixel", "imager", "spacing", "kind"),
    [
        (None, ["0.2", "0.2"], (0.2, 0.2), "imager"),
        (["0.1", "0.1"], ["0.2", "0.2"], (0.1, 0.1), "pixel"),
        (["0.2", "0.2"], ["0.2", "0.2"], (0.2, 0.2), "imager"),  # equal: not corrected, PS3.3 10.7.1.3
        (["0", "0.2"], None, None, None),
        ("0.2", None, None, None),
    ],
)
def test_spacing(write_dicom, pixel, imager, spacing, kind):
    header = read(write_dicom(RAMP, PixelSpacing=pixel, ImagerPixelSpacing=imager)).header
    assert (header.spacing, header.spacing_kind) == (spacing, kind)


@pytest.mark.parametrize(
    ("value", "years"),
    [("034Y", 34), ("34Y", 34), ("018M", 1), ("104W", 1), ("105W", 2), ("400D", 1), ("000Y", 0), ("Y", None), ("034", None)],
)
def test_age(value, years):
    assert age_of(value) == years


def test_dates_that_are_none():
    assert date_of("2020.02.29") == datetime.date(2020, 2, 29)
    assert [date_of(value) for value in ("20210229", "2021", "", None, "20200101-20200202")] == [None] * 5


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("GE MEDICAL SYSTEMS", "ge"),
        ("G.E. Medical Systems", "ge"),
        ('"GE Healthcare"', "ge"),
        ("General Hospital", "other"),
        ("Gendex", "other"),
        ("SIEMENS", "siemens"),
        ("Philips Medical Systems", "philips"),
        ("TOSHIBA_MEC", "canon"),
        ("FUJI PHOTO FILM Co., ltd.", "fujifilm"),
        ("Agfa-Gevaert", "agfa"),
        ("EASTMAN KODAK", "carestream"),
        ("KONICA MINOLTA", "konica_minolta"),
        ("HOLOGIC, Inc.", "hologic"),
        ("Samsung Electronics", "samsung"),
        ("SHIMADZU", "shimadzu"),
        ("Hitachi, Ltd.", "hitachi"),
        ("UIH", "united_imaging"),
        ("phantom_a", "phantom_a"),
        ("phantom_b", "phantom_b"),
        ("Dr Smith's own", "other"),
        (None, None),
    ],
)
def test_vendors(manufacturer, vendor):
    assert vendor_of(manufacturer) == vendor


@pytest.mark.parametrize(
    "keyword",
    [
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "PatientBirthDate",
        "BodyPartExamind",
        "PixelData",
        "ReferencedImageSequence",
    ],
)
def test_a_tag_that_cannot_be_a_label_is_an_error_of_the_card(write_dicom, keyword):
    with pytest.raises(CardError, match=keyword):
        read(write_dicom(RAMP), tags=[keyword])


def test_dicomdir_is_passed_over(write_dicom):
    root = write_dicom(RAMP, name="DICOMDIR")
    write_dicom(RAMP, name="IM1")
    assert READERS["dicom"].find(root) == [Item("IM1")]


@pytest.mark.parametrize(
    ("elements", "flags"),
    [
        ({}, ()),
        ({"BurnedInAnnotation": "NO"}, ()),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, ("secondary_capture",)),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, ("secondary_capture",)),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4"}, ()),
        ({"Modality": "OT", "ConversionType": "DF"}, ("secondary_capture",)),
        ({"Modality": "OT"}, ()),
        ({"Modality": "US", "BurnedInAnnotation": "YES"}, ("burned_in", "ultrasound")),
        ({"Modality": "IVUS"}, ("ultrasound",)),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1"}, ("ultrasound",)),
    ],
)
def test_flags_of_what_may_show_text(write_dicom, elements, flags):
    assert read(write_dicom(RAMP, **elements)).header.flags == flags


def test_members_of_archives_are_read(write_dicom):
    root = write_dicom(RAMP)
    with zipfile.ZipFile(root / "exam.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(root / "image.dcm", "IM1")
    with tarfile.open(root / "exam.tar", "w") as archive:
        archive.add(root / "image.dcm", "IM1")
    items = READERS["dicom"].find(root)
    assert [item.path for item in items] == ["exam.tar!/IM1", "exam.zip!/IM1", "image.dcm"]
    for item in items:
        assert np.array_equal(read(root, item.path).pixels, RAMP)


@pytest.mark.parametrize(("stored", "high_bit"), [(1, 0)])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_one_bit_a_pixel(write_dicom, stored, high_bit, syntax):
    """Frames of 15 pixels follow each other without padding: the second begins in the middle of a byte."""
    frames = np.random.default_rng(0).integers(0, 2, (4, 3, 5)).astype(np.uint8)
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    if syntax == ExplicitVRBigEndian:
        packed = np.frombuffer(packed, "<u2").byteswap().tobytes()
    root = write_dicom(
        frames, syntax=syntax, NumberOfFrames="4", BitsAllocated=1, BitsStored=stored, HighBit=high_bit, PixelData=packed
    )
    content = (root / "image.dcm").read_bytes()
    (root / "image.dcm").write_bytes(content.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW"))
    images = list(READERS["dicom"].read(root, Item("image.dcm")))
    assert all(np.array_equal(image.pixels, frame) for image, frame in zip(images, frames, strict=True))
    assert {image.full_range for image in images} == {(0.0, 1.0)}


def test_odd_frames_of_bytes_in_big_endian_words(write_dicom):
    frames = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    swapped = np.frombuffer(frames.tobytes(), "<u2").byteswap().tobytes()
    root = write_dicom(frames, syntax=ExplicitVRBigEndian, NumberOfFrames="2", PixelData=swapped)
    content = (root / "image.dcm").read_bytes()
    (root / "image.dcm").write_bytes(content.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW"))
    images = list(READERS["dicom"].read(root, Item("image.dcm")))
    assert [image.pixels.tolist() for image in images] == frames.tolist()


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_floating_point_pixels_keep_their_values(write_dicom, keyword, kind):
    values = np.array([[0.25, -3.5, 7.0], [1.5, 2.125, -9999.0]], kind)
    elements = {keyword: values.tobytes(), keyword.replace("Data", "PaddingValue"): -9999.0}
    image = read(write_dicom(values, PixelData=None, BitsAllocated=8 * values.itemsize, RescaleSlope="2", **elements))
    assert image.pixels.dtype == np.uint16
    units = image.slope * image.pixels.astype(float) + image.intercept
    expected = np.where(values == -9999, -3.5, values) * 2
    assert np.abs(units - expected).max() <= 21 / 65535
    assert image.full_range == pytest.approx((-7.0, 14.0))
    assert image.padding == pytest.approx(1 / 6)


def test_floating_point_pixels_that_are_no_numbers(write_dicom):
    values = np.array([[0.25, np.nan], [np.inf, 1.0]], "<f4")
    found = read(write_dicom(values, PixelData=None, FloatPixelData=values.tobytes(), BitsAllocated=32))
    assert found.reason == "non_finite"


def test_whole_numbers_in_floating_point_are_exact(write_dicom):
    values = np.array([[-1000.0, 3000.0], [0.0, 17.0]], "<f4")
    image = read(write_dicom(values, PixelData=None, FloatPixelData=values.tobytes(), BitsAllocated=32))
    assert np.array_equal(image.pixels * image.slope + image.intercept, values)
    assert image.full_range == (-1000.0, 3000.0)


def test_the_share_of_padding_is_told(write_dicom):
    pixels = RAMP.copy()
    pixels[0] = 5000
    assert read(write_dicom(pixels, PixelPaddingValue=5000)).padding == pytest.approx(1 / 3)
    assert read(write_dicom(RAMP)).padding == 0.0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_high_throughput_jpeg_2000(write_dicom, dtype):
    imagecodecs = pytest.importorskip("imagecodecs", reason="there is no other encoder of HTJ2K among Python packages")
    rng = np.random.default_rng(0)
    pixels = (np.add.outer(np.arange(64), np.arange(48)) + rng.integers(0, 9, (64, 48))) * np.iinfo(dtype).max // 120
    pixels = pixels.astype(dtype)
    stream = imagecodecs.htj2k_encode(pixels, reversible=True)
    folder = write_dicom(pixels, syntax=HTJ2KLossless, PixelData=encapsulate([stream]))
    (found,) = READERS["dicom"].read(folder, Item("image.dcm"))
    assert isinstance(found, Image), found
    assert np.array_equal(found.pixels, pixels)
    assert found.syntax.startswith("High-Throughput JPEG 2000")
