"""Colour: codings, palettes, headers that lie; against pydicom and against Pillow's decoding of the same stream."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut
from pydicom.uid import JPEG2000, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from medssl.data.formats import READERS, Image, Item, Reject
from medssl.data.formats.options import ReadOptions

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
COLOUR = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}


def read(root, name="image.dcm", channels="rgb") -> Image | Reject:
    (found,) = READERS["dicom"].read(root, Item(name), (), ReadOptions(channels=channels))
    return found


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_by_pixel_and_by_plane(write_dicom, syntax, planar):
    data = (RGB.transpose(2, 0, 1) if planar else RGB).tobytes()
    image = read(write_dicom(RGB, syntax=syntax, PixelData=data, **{**COLOUR, "PlanarConfiguration": planar}))
    assert np.array_equal(image.pixels, RGB)
    assert (image.full_range, image.window, image.slope, image.inverted) == ((0.0, 255.0), None, 1.0, False)


def _ybr(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Pillow.fromarray(rgb).convert("YCbCr"))


def test_ybr_full(write_dicom):
    image = read(write_dicom(RGB, PixelData=_ybr(RGB).tobytes(), **{**COLOUR, "PhotometricInterpretation": "YBR_FULL"}))
    assert np.abs(image.pixels.astype(int) - RGB).max() <= 3


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_PARTIAL_422"])
def test_subsampled_chroma(write_dicom, photometric):
    """Y1 Y2 Cb Cr a pair (PS3.3 C.7.6.3.1.2); pairs of one colour lose nothing."""
    rgb = np.repeat(RGB[:, ::2], 2, axis=1)
    ybr = _ybr(rgb).astype(float)
    if photometric == "YBR_PARTIAL_422":
        ybr = np.rint((ybr - (0, 128, 128)) * (219 / 255, 224 / 255, 224 / 255) + (16, 128, 128))
    pairs = ybr.astype(np.uint8).reshape(6, 4, 2, 3)
    data = np.stack([pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], axis=-1).tobytes()
    image = read(write_dicom(rgb, PixelData=data, **{**COLOUR, "PhotometricInterpretation": photometric}))
    assert np.abs(image.pixels.astype(int) - rgb).max() <= 4
    # All samples are there although the header says that they are shared.
    full = read(write_dicom(rgb, PixelData=_ybr(rgb).tobytes(), **{**COLOUR, "PhotometricInterpretation": "YBR_FULL_422"}))
    assert np.abs(full.pixels.astype(int) - rgb).max() <= 3


def test_subsampled_chroma_needs_even_rows(write_dicom):
    found = read(write_dicom(RGB[:, :7], **{**COLOUR, "PhotometricInterpretation": "YBR_FULL_422"}))
    assert found.reason == "bad_header"


def test_colour_of_other_depths_is_refused(write_dicom):
    assert read(write_dicom(RGB.astype(np.uint16), **COLOUR)).reason == "unsupported_type"
    assert read(write_dicom(RGB, BitsStored=7, **COLOUR)).reason == "unsupported_type"
    assert read(write_dicom(RGB, PixelRepresentation=1, **COLOUR)).reason == "unsupported_type"


def test_colour_whose_content_is_grey(write_dicom):
    grey = np.repeat(RGB[..., :1], 3, axis=2)
    image = read(write_dicom(grey, **COLOUR), channels="grey")
    assert np.array_equal(image.pixels, grey[..., 0])
    assert read(write_dicom(RGB, **COLOUR), channels="grey").reason == "colour"


def test_one_colour_all_over_is_constant(write_dicom):
    pixels = np.full((4, 4, 3), (1, 2, 3), np.uint8)
    assert read(write_dicom(pixels, **COLOUR)).reason == "constant"


@pytest.mark.parametrize(("stored", "photometric"), [(8, "MONOCHROME2"), (8, "MONOCHROME1"), (4, "MONOCHROME2")])
def test_grey_in_three_channels(write_dicom, stored, photometric):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    image = read(write_dicom(pixels, BitsStored=stored, PhotometricInterpretation=photometric, WindowCenter="5", WindowWidth="3"))
    levels = pixels.astype(int) * (17 if stored == 4 else 1)
    assert np.array_equal(image.pixels[..., 1], 255 - levels if photometric == "MONOCHROME1" else levels)
    assert (image.inverted, image.window, image.slope) == (False, None, 1.0)


def _palette(kind: str, count: int = 256, first: int = 0) -> dict:
    tables = np.random.default_rng(1).integers(0, 2**16, (3, count))
    tables = tables >> 8 if kind == "<u1" else tables
    elements: dict = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [count % 65536, first, 8 * np.dtype(kind).itemsize]
        elements[f"{colour}PaletteColorLookupTableData"] = table.astype(kind).tobytes() + b"\0" * (table.astype(kind).nbytes % 2)
    return elements


@pytest.mark.parametrize("kind", ["<u1", "<u2"])
@pytest.mark.parametrize(("count", "first"), [(256, 0), (100, 50), (255, 3)])
def test_palettes(write_dicom, kind, count, first):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    root = write_dicom(pixels, **_palette(kind, count, first))
    dataset = pydicom.dcmread(root / "image.dcm")
    if count % 2 == 0 or kind == "<u2":
        expected = apply_color_lut(dataset.pixel_array, dataset)
        expected = expected >> 8 if kind == "<u2" else expected
        assert np.array_equal(read(root).pixels, expected)
    table = np.frombuffer(dataset.RedPaletteColorLookupTableData, kind)[:count]
    red = (table >> 8 if kind == "<u2" else table)[np.clip(pixels.astype(int) - first, 0, count - 1)]
    assert np.array_equal(read(root).pixels[..., 0], red)


@pytest.mark.parametrize(("kind", "count"), [("<u1", 4096), ("<u2", 65536)])
def test_palettes_of_more_colours_than_a_byte_counts(write_dicom, kind, count):
    pixels = np.arange(0, count, count // 64, dtype=np.uint16).reshape(8, 8)
    elements = _palette(kind, count)
    table = np.frombuffer(elements["BluePaletteColorLookupTableData"], kind)
    image = read(write_dicom(pixels, **elements))
    assert np.array_equal(image.pixels[..., 2], (table >> 8 if kind == "<u2" else table)[pixels])


def test_a_palette_of_8_bits_in_words_of_16(write_dicom):
    elements = _palette("<u1")
    for keyword in list(elements):
        if keyword.endswith("Data"):
            elements[keyword] = np.frombuffer(elements[keyword], np.uint8).astype("<u2").tobytes()
        elif keyword.endswith("Descriptor"):
            elements[keyword] = [256, 0, 16]
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read(write_dicom(pixels, **elements)).pixels, read(write_dicom(pixels, **_palette("<u1"))).pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_segmented_palettes(write_dicom, bits):
    """Discrete and linear segments (PS3.3 C.7.9.2), expanded as pydicom does."""
    segments = [0, 3, 10, 200, 30, 1, 100, 250, 1, 50, 0, 0, 2, 7, 9, 1, 101, 101]
    elements: dict = {"PhotometricInterpretation": "PALETTE COLOR"}
    for shift, colour in enumerate(("Red", "Green", "Blue")):
        values = [*segments[:4], segments[4] + shift, *segments[5:]]
        values = [
            value * 200 if bits == 16 and number in (2, 3, 4, 7, 10, 13, 14, 17) else value for number, value in enumerate(values)
        ]
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = np.array(values, f"<u{bits // 8}").tobytes()
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    root = write_dicom(pixels, **elements)
    dataset = pydicom.dcmread(root / "image.dcm")
    expected = apply_color_lut(dataset.pixel_array, dataset)
    assert np.array_equal(read(root).pixels, expected >> 8 if bits == 16 else expected)


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([0, 2, 1, 2], "bad_header"),  # ends too soon
        ([1, 200, 7], "unsupported_type"),  # begins with a line from nowhere
        ([0, 2, 1, 2, 2, 255, 0, 0, 0, 0], "unsupported_type"),  # repeats itself
        ([0, 0] * 50, "bad_header"),
        ([], "bad_header"),
    ],
)
def test_segments_that_are_damaged(write_dicom, segments, reason):
    elements: dict = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = bytes(segments)
    assert read(write_dicom(np.zeros((4, 4), np.uint8), **elements)).reason == reason


def test_palettes_that_are_damaged(write_dicom):
    for keyword, value in (
        ("RedPaletteColorLookupTableData", b"\0" * 20),
        ("GreenPaletteColorLookupTableDescriptor", [200, 0, 8]),
        ("BluePaletteColorLookupTableDescriptor", None),
    ):
        found = read(write_dicom(np.zeros((4, 4), np.uint8), **{**_palette("<u1"), keyword: value}))
        assert found.reason == "bad_header"


def test_a_palette_without_transfer_syntax(shared_data):
    """OT-PAL-8-face: no meta information; implicit by its first element, and its pixels fit exactly."""
    image = read(shared_data / "dicom" / "malformed", "OT-PAL-8-face.dcm")
    assert image.pixels.shape == (480, 640, 3)
    assert image.syntax == "Implicit VR Little Endian"
    assert image.header.flags == ("secondary_capture",)
    dataset = pydicom.dcmread(shared_data / "dicom" / "malformed" / "OT-PAL-8-face.dcm", force=True)
    stored = np.frombuffer(dataset.PixelData, np.uint8).reshape(480, 640)
    red = np.frombuffer(dataset.RedPaletteColorLookupTableData, "<u2")
    assert np.array_equal(image.pixels[..., 0], (red >> 8)[np.minimum(stored, 199)])


COLOUR_FILES = [
    "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "SC_jpeg_no_color_transform.dcm", "SC_jpeg_no_color_transform_2.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+s2.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg.dcm", "SC_rgb_jpeg_app14_dcmd.dcm", "SC_rgb_jpeg_dcmd.dcm",
    "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle.dcm", "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd_jpeg.dcm", "SC_ybr_full_422_uncompressed.dcm", "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", COLOUR_FILES)
def test_pydicom_agrees_on_its_own_colour_files(pydicom_files, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.pixels.pixel_array(pydicom.dcmread(pydicom_files / name))
    assert np.abs(read(pydicom_files, name).pixels.astype(int) - expected).max() <= 1


# Pillow assumes YCbCr where nothing in the stream says so; these two are RGB by DICOM's header, and look it.
ASSUMED = ("SC_jpeg_no_color_transform.dcm", "SC_rgb_jpeg.dcm")


@pytest.mark.parametrize("name", [name for name in COLOUR_FILES if name not in ASSUMED])
def test_pillow_agrees_on_the_same_stream(pydicom_files, name):
    dataset = pydicom.dcmread(pydicom_files / name)
    if dataset.file_meta.TransferSyntaxUID not in (JPEGBaseline8Bit, JPEG2000):
        return
    expected = np.asarray(Pillow.open(io.BytesIO(next(generate_frames(dataset.PixelData, number_of_frames=1)))).convert("RGB"))
    assert np.abs(read(pydicom_files, name).pixels.astype(int) - expected).max() <= 2


def test_pillow_agrees_on_every_frame_of_a_real_cine(pydicom_files):
    dataset = pydicom.dcmread(pydicom_files / "examples_ybr_color.dcm")
    images = list(READERS["dicom"].read(pydicom_files, Item("examples_ybr_color.dcm"), (), ReadOptions(channels="rgb")))
    streams = list(generate_frames(dataset.PixelData, number_of_frames=30))
    assert len(images) == 30
    for image, stream in list(zip(images, streams, strict=True))[::7]:
        assert np.abs(image.pixels.astype(int) - np.asarray(Pillow.open(io.BytesIO(stream)))).max() <= 2
    assert {image.header.flags for image in images} == {("ultrasound",)}


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_jpeg_is_right_about_its_own_colours(write_dicom, photometric, subsampling):
    """JFIF says YCbCr, whatever Photometric Interpretation says."""
    smooth = np.stack(np.meshgrid(np.arange(32) * 7, np.arange(24) * 10), axis=-1).astype(np.uint8)
    rgb = np.concatenate([smooth, 255 - smooth[..., :1]], axis=-1)
    buffer = io.BytesIO()
    Pillow.fromarray(rgb).save(buffer, "JPEG", quality=95, subsampling=subsampling)
    elements = {**COLOUR, "PhotometricInterpretation": photometric}
    image = read(write_dicom(rgb, syntax=JPEGBaseline8Bit, PixelData=encapsulate([buffer.getvalue()]), **elements))
    assert np.abs(image.pixels.astype(int) - np.asarray(Pillow.open(buffer))).max() <= 2


def test_a_progressive_jpeg_has_another_syntax(write_dicom):
    buffer = io.BytesIO()
    Pillow.fromarray(RGB).save(buffer, "JPEG", progressive=True)
    found = read(write_dicom(RGB, syntax=JPEGBaseline8Bit, PixelData=encapsulate([buffer.getvalue()]), **COLOUR))
    assert found.reason == "undecodable"


def test_what_is_compressed_may_not_ask_for_gigabytes(write_dicom):
    data = encapsulate([b"\xff\xd8" + bytes(100)])
    claims = {**COLOUR, "Rows": 8000, "Columns": 8000}
    assert read(write_dicom(RGB, syntax=JPEGBaseline8Bit, PixelData=data, **claims)).reason == "too_large"


def _rle(*runs: bytes) -> bytes:
    offsets = np.cumsum([64, *map(len, runs)])[:-1]
    return np.array([len(runs), *offsets, *[0] * (15 - len(runs))], "<u4").tobytes() + b"".join(runs)


def test_runs_that_cross_rows_and_runs_that_go_on(write_dicom):
    """Eight sevens, then 1 to 8; a last run may be longer than the image. PS3.5 G.3.1 wants rows apart, writers differ."""
    for tail in (b"", b"\x81\x07"):
        data = encapsulate([_rle(bytes([257 - 8, 7, 7, *range(1, 9)]) + tail)])
        found = read(write_dicom(np.zeros((4, 4), np.uint8), syntax=RLELossless, PixelData=data), channels="grey")
        assert found.pixels.ravel().tolist() == [7] * 8 + list(range(1, 9))


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (_rle(b"\xff\x07"), "undecodable"),  # 2 of 16 pixels
        (_rle(b"\xf1\x07", b"\xf1\x07"), "undecodable"),  # two segments for one byte
        (_rle(b"\xf1\x07")[:50], "truncated"),
        (np.array([1, 9999, *[0] * 14], "<u4").tobytes() + b"\xf1\x07", "truncated"),
        (np.array([1, 3, *[0] * 14], "<u4").tobytes() + b"\xf1\x07", "truncated"),
        (_rle(b"\x81\x07" * 2**18), "undecodable"),  # 32 MiB of sevens
    ],
)
def test_damaged_run_lengths(write_dicom, stream, reason):
    found = read(write_dicom(np.zeros((4, 4), np.uint8), syntax=RLELossless, PixelData=encapsulate([stream])), channels="grey")
    assert found.reason == reason
