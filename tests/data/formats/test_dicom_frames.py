"""Files of many frames: each with its own geometry and window, decoded alone, the missing ones named."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medssl.data.formats import READERS, Image, Item, RefusedError, Reject
from medssl.data.formats.dicom_file import DicomFile
from medssl.data.formats.dicom_frames import frame_headers

FRAMES = np.random.default_rng(0).integers(0, 4096, (5, 24, 17)).astype(np.uint16)


def read(root, item=Item("image.dcm")) -> list:
    return list(READERS["dicom"].read(root, item))


def _group(**macros: dict[str, Any]) -> Dataset:
    group = Dataset()
    for macro, elements in macros.items():
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(group, macro, [item])
    return group


def _rle(frames: np.ndarray) -> list[bytes]:
    encoder = get_encoder(RLELossless)
    options = {"rows": frames.shape[1], "columns": frames.shape[2], "number_of_frames": 1, "samples_per_pixel": 1}
    bits = {"bits_allocated": 16, "bits_stored": 16, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2"}
    return [encoder.encode(frame.tobytes(), index=0, **options, **bits) for frame in frames]


def _jpeg2000(shared_data) -> bytes:
    dataset = pydicom.dcmread(shared_data / "dicom" / "compressed" / "MR1_J2KR")
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_cine_gives_an_image_a_frame(write_dicom, syntax):
    frames = FRAMES.astype(">u2") if syntax == ExplicitVRBigEndian else FRAMES
    images = read(write_dicom(frames, syntax=syntax, NumberOfFrames="5", PatientID="A", WindowCenter="5", WindowWidth="10"))
    assert [image.header.frame for image in images] == list(range(5))
    assert all(np.array_equal(image.pixels, frame) for image, frame in zip(images, FRAMES, strict=True))
    assert {(image.header.patient_id, image.header.position, image.window) for image in images} == {("A", None, (5.0, 10.0))}


def test_an_item_may_name_frames(write_dicom):
    root = write_dicom(FRAMES, NumberOfFrames="5")
    images = read(root, Item("image.dcm", 2, 4))
    assert [image.header.frame for image in images] == [2, 3]
    assert np.array_equal(images[0].pixels, FRAMES[2])
    assert read(root, Item("image.dcm", 7, 8)) == [Reject(Item("image.dcm", 7, 8), "truncated", "frame 8 of 5")]


def test_frames_come_one_after_another(write_dicom):
    frames = np.tile(FRAMES, (1, 8, 8))
    root = write_dicom(frames, NumberOfFrames="5")
    found = READERS["dicom"].read(root, Item("image.dcm"))
    assert next(found).header.frame == 0
    # What is cut off meanwhile was not read before.
    with (root / "image.dcm").open("r+b") as file:
        file.truncate((root / "image.dcm").stat().st_size - frames[0].nbytes)
    assert [getattr(other, "reason", "image") for other in found] == ["image", "image", "image", "truncated"]


@pytest.mark.parametrize("lost", [1, FRAMES[0].nbytes, 2 * FRAMES[0].nbytes + 3])
def test_missing_frames_are_one_reject_and_the_others_are_read(write_dicom, lost):
    root = write_dicom(FRAMES, NumberOfFrames="5")
    content = (root / "image.dcm").read_bytes()
    (root / "image.dcm").write_bytes(content[:-lost])
    *images, reject = read(root)
    there = (FRAMES.nbytes - lost) // FRAMES[0].nbytes
    assert [np.array_equal(image.pixels, frame) for image, frame in zip(images, FRAMES[:there], strict=True)] == [True] * there
    assert reject == Reject(Item("image.dcm", there, 5), "truncated", f"{there} of 5 frames are there")


def test_more_pixels_than_frames_is_refused(write_dicom):
    assert read(write_dicom(FRAMES, NumberOfFrames="4"))[0].reason == "bad_header"


def test_a_constant_frame_is_a_reject_of_its_own(write_dicom):
    frames = FRAMES.copy()
    frames[1] = 7
    found = read(write_dicom(frames, NumberOfFrames="5"))
    assert found[1] == Reject(Item("image.dcm", 1, 2), "constant")
    assert [type(one) for one in found] == [Image, Reject, Image, Image, Image]


def test_functional_groups(write_dicom):
    """Per frame before shared; what neither has, from the data set (PS3.3 C.7.6.16)."""
    shared = _group(
        PixelMeasuresSequence={"PixelSpacing": ["0.5", "0.25"], "SpacingBetweenSlices": "2", "SliceThickness": "3"},
        PlaneOrientationSequence={"ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"]},
        FrameVOILUTSequence={"WindowCenter": "40", "WindowWidth": "400"},
        PixelValueTransformationSequence={"RescaleSlope": "1", "RescaleIntercept": "-1024"},
        FrameAnatomySequence={"FrameLaterality": "L"},
    )
    per_frame = [_group(PlanePositionSequence={"ImagePositionPatient": ["0", "0", str(2 * k)]}) for k in range(5)]
    per_frame[3].update(
        _group(
            PixelValueTransformationSequence={"RescaleSlope": "2", "RescaleIntercept": "0"},
            FrameVOILUTSequence={"WindowCenter": "7", "WindowWidth": "9", "VOILUTFunction": "SIGMOID"},
        )
    )
    root = write_dicom(
        FRAMES,
        NumberOfFrames="5",
        BitsStored=12,
        PixelSpacing=["9", "9"],
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=per_frame,
    )
    images = read(root)
    for number, image in enumerate(images):
        header = image.header
        assert np.array_equal(image.pixels, FRAMES[number])
        assert (header.frame, header.position) == (number, (0.0, 0.0, 2.0 * number))
        assert (header.spacing, header.spacing_kind, header.spacing_slice) == ((0.5, 0.25), "pixel", 2.0)
        assert header.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        assert header.laterality == "L"
        assert header.slice_index is None
    assert [(image.slope, image.intercept) for image in images] == [(1, -1024)] * 3 + [(2, 0), (1, -1024)]
    assert [image.window for image in images] == [(40.0, 400.0)] * 3 + [(7.0, 9.0), (40.0, 400.0)]
    assert [image.window_function for image in images] == ["linear"] * 3 + ["sigmoid", "linear"]
    assert images[0].full_range == (-1024.0, 3071.0)
    with (root / "image.dcm").open("rb") as file:
        assert frame_headers(DicomFile(file).dataset) == [image.header for image in images]


def test_an_enhanced_object_of_one_frame(write_dicom):
    group = _group(PlanePositionSequence={"ImagePositionPatient": ["1", "2", "3"]})
    (image,) = read(write_dicom(FRAMES[0], NumberOfFrames="1", PerFrameFunctionalGroupsSequence=[group]))
    assert image.header.position == (1.0, 2.0, 3.0)


def test_groups_that_are_damaged_or_missing_say_nothing(write_dicom):
    group = _group(PlanePositionSequence={"ImagePositionPatient": ["1", "2"]})
    images = read(write_dicom(FRAMES, NumberOfFrames="5", PerFrameFunctionalGroupsSequence=[group]))
    assert [image.header.position for image in images] == [None] * 5


@pytest.mark.parametrize(("between", "step"), [("4", 4.0), ("-4", -4.0)])
@pytest.mark.parametrize("vector", [None, [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
def test_slices_of_nuclear_medicine_follow_the_normal(write_dicom, between, step, vector):
    """PS3.3 C.8.4.15: rows to the left (+x), columns to the back (+y): the normal is to the head (+z)."""
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = ["1", "2", "3"], ["1", "0", "0", "0", "1", "0"]
    root = write_dicom(
        FRAMES,
        NumberOfFrames="5",
        Modality="NM",
        DetectorInformationSequence=[detector],
        SpacingBetweenSlices=between,
        SliceVector=vector,
    )
    headers = [image.header for image in read(root)]
    numbers = [number - 1 for number in vector or range(1, 6)]
    assert [header.position for header in headers] == [(1.0, 2.0, 3.0 + step * number) for number in numbers]
    assert {header.spacing_slice for header in headers} == {4.0}
    assert {header.orientation for header in headers} == {(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("lost", [0, 1])
def test_compressed_frames_by_table_and_by_fragment(write_dicom, has_table, lost):
    data = encapsulate(_rle(FRAMES), has_bot=has_table)
    root = write_dicom(FRAMES, syntax=RLELossless, NumberOfFrames="5", PixelData=data)
    content = (root / "image.dcm").read_bytes()
    last = content.rindex(b"\xfe\xff\x00\xe0")
    (root / "image.dcm").write_bytes(content[: last + 3] if lost else content)
    found = read(root)
    assert all(np.array_equal(image.pixels, frame) for image, frame in zip(found[: 5 - lost], FRAMES, strict=False))
    assert [one.reason for one in found[5 - lost :]] == ["truncated"] * lost


def test_compressed_frames_by_the_extended_table(write_dicom):
    data, offsets, lengths = encapsulate_extended(_rle(FRAMES))
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    images = read(write_dicom(FRAMES, syntax=RLELossless, NumberOfFrames="5", PixelData=data, **tables))
    assert all(np.array_equal(image.pixels, frame) for image, frame in zip(images, FRAMES, strict=True))


@pytest.mark.parametrize("offsets", [(0, 0, 0, 0, 0), (2**32 - 8,) * 5, (3, 5, 7, 9, 11)])
def test_a_table_that_leads_nowhere_is_not_followed(write_dicom, offsets):
    data = encapsulate(_rle(FRAMES), has_bot=True)
    (length,) = struct.unpack("<L", data[4:8])
    data = data[:8] + struct.pack("<5L", *offsets) + data[8 + length :]
    found = read(write_dicom(FRAMES, syntax=RLELossless, NumberOfFrames="5", PixelData=data))
    right = [isinstance(one, Image) and np.array_equal(one.pixels, FRAMES[one.header.frame]) for one in found]
    if offsets[0] == 3:
        assert right == [True] * 5
    else:
        assert all(ok or isinstance(one, Reject) or one.header.frame in (0, 4) for ok, one in zip(right, found, strict=True))


def test_frames_in_several_fragments_without_a_table(write_dicom, shared_data):
    stream = _jpeg2000(shared_data)
    data = encapsulate([stream] * 3, fragments_per_frame=4, has_bot=False)
    reference = _pixels(shared_data / "dicom" / "compressed" / "MR1_J2KR")
    frames = np.stack([reference] * 3)
    root = write_dicom(frames, syntax=JPEG2000Lossless, NumberOfFrames="3", PixelData=data)
    images = read(root)
    assert len(images) == 3
    assert all(np.array_equal(image.pixels, reference) for image in images)


def _pixels(path) -> np.ndarray:
    with path.open("rb") as file:
        return DicomFile(file).frame(0)


def test_a_damaged_frame_costs_that_frame(write_dicom):
    streams = _rle(FRAMES)
    streams[2] = streams[2][:100]
    found = read(write_dicom(FRAMES, syntax=RLELossless, NumberOfFrames="5", PixelData=encapsulate(streams)))
    assert [getattr(one, "reason", "image") for one in found] == ["image", "image", "truncated", "image", "image"]
    assert found[2].item == Item("image.dcm", 2, 3)


def test_a_claim_of_many_frames_is_cheap(write_dicom):
    found = read(write_dicom(FRAMES, NumberOfFrames="1000000"))
    assert [type(one) for one in found] == [Image] * 5 + [Reject]
    with pytest.raises(RefusedError, match="too_large"):
        frame_headers(pydicom.Dataset.from_json({"00280008": {"vr": "IS", "Value": [10**6]}}))


def test_a_real_enhanced_object_that_lacks_its_end(shared_data):
    root = shared_data / "dicom" / "malformed"
    images = read(root, Item("emri_small_jpeg_2k_lossless_too_short.dcm"))
    assert len(images) == 10
    assert [image.header.frame for image in images] == list(range(10))


@pytest.mark.filterwarnings("ignore:The .0028,0004.")
def test_tiles_of_a_slide(shared_data):
    """Whole-slide images are read by the functions that read cines; Photometric Interpretation lies (RGB for YCbCr)."""
    path = shared_data / "he_regions" / "small_dicom_wsi.dcm"
    with path.open("rb") as file:
        source = DicomFile(file, (), ("TotalPixelMatrixColumns", *_image_keywords()))
        assert (source.present, source.layout.frames) == (42, 42)
        assert source.dataset.TotalPixelMatrixColumns > 500
        tile = source.frame(20)
    assert (tile.shape, tile.dtype) == ((500, 500, 3), np.uint8)
    expected = pydicom.pixels.pixel_array(path, index=20)
    assert np.array_equal(tile, expected)
    # Stained tissue: the green channel is the darkest.
    assert tile[..., 1].mean() < min(tile[..., 0].mean(), tile[..., 2].mean())


def _image_keywords() -> tuple[str, ...]:
    from medssl.data.formats.dicom_file import IMAGE_KEYWORDS

    return IMAGE_KEYWORDS
