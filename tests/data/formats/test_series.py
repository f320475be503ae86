"""Grouping slices into volumes: order, sub-series, and a name for each series that is none."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medssl.data.formats.finding import find_files
from medssl.data.formats.items import Item, Reject
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.series import group, scan
from medssl.data.formats.slice_headers import SliceHeader

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def header(number: int, z: float = 0.0, **fields) -> SliceHeader:
    values = {
        "path": f"{number:03}.dcm",
        "frame": 0,
        "study_uid": "2.25.1",
        "series_uid": "2.25.2",
        "instance_uid": f"2.25.3.{number}",
        "sop_class": "1.2.840.10008.5.1.4.1.1.4",
        "image_type": ("ORIGINAL", "PRIMARY", "M"),
        "instance_number": number,
        "acquisition": None,
        "echo_time": None,
        "temporal_position": None,
        "b_value": None,
        "trigger_time": None,
        "stack": None,
        "rows": 8,
        "columns": 9,
        "spacing": (0.5, 0.6),
        "position": (1.0, 2.0, z),
        "orientation": AXIAL,
        "slope": 1.0,
        "intercept": 0.0,
        "rescale_type": None,
        "photometric": "MONOCHROME2",
    }
    return SliceHeader(**{**values, **fields})


def stack(count: int, first: int = 0, step: float = 2.5, **fields) -> list[SliceHeader]:
    return [header(first + index, step * index, **fields) for index in range(count)]


def only(headers, **options) -> Item | Reject:
    (found,) = group(headers, ReadOptions(**options))
    return found


def names(item: Item) -> list[int]:
    return [int(path[:3]) for path in item.members]


def test_slices_are_ordered_by_place_not_by_name_or_number():
    slices = [dataclasses.replace(one, instance_number=-index) for index, one in enumerate(stack(12))]
    places = list(range(12))
    random.Random(0).shuffle(places)
    moved = [dataclasses.replace(one, position=(1.0, 2.0, 2.5 * place)) for one, place in zip(slices, places, strict=True)]
    item = only(moved)
    assert [places[number] for number in names(item)] == list(range(12))
    assert item.path == item.members[0]
    assert item.frames == (0,) * 12
    assert only(moved[::-1]) == item


def test_the_normal_gives_the_order_of_oblique_slices():
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    normal = np.cross(row, column)
    slices = [header(n, position=tuple(3 * n * normal + 7), orientation=(*row, *column)) for n in (3, 0, 4, 1, 2)]
    assert names(only(slices)) == [0, 1, 2, 3, 4]


def test_series_are_kept_apart_by_uid_and_without_one_by_folder():
    slices = stack(5) + stack(5, 10, series_uid="2.25.9")
    for number, folder in ((20, "a"), (30, "b")):
        slices += [dataclasses.replace(one, path=f"{folder}/{one.path}") for one in stack(5, number, series_uid=None)]
    assert [len(item.members) for item in group(slices)] == [5, 5, 5, 5]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("acquisition", ("1", "2")),
        ("echo_time", ("10", "80")),
        ("temporal_position", ("1", "2")),
        ("b_value", ("0", "1000")),
        ("b_value", (None, "1000")),
        ("image_type", (("ORIGINAL", "PRIMARY", "M"), ("ORIGINAL", "PRIMARY", "P"))),
        ("stack", ("1", "2")),
        ("trigger_time", ("12.5", "40")),
    ],
)
def test_sub_series_tell_slices_at_one_position_apart(field, values):
    slices = stack(6, **{field: values[0]}) + stack(6, 6, **{field: values[1]})
    assert [names(item) for item in group(slices)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_two_fields_together_tell_slices_apart():
    slices = []
    for echo in ("10", "80"):
        for time in ("1", "2", "3"):
            slices += stack(4, len(slices), echo_time=echo, temporal_position=time)
    random.Random(0).shuffle(slices)
    assert [names(item) for item in group(slices)] == [list(range(first, first + 4)) for first in range(0, 24, 4)]


def test_a_series_is_not_split_where_its_positions_are_unique():
    slices = [dataclasses.replace(one, acquisition=str(one.instance_number % 2), echo_time="1") for one in stack(8)]
    assert len(only(slices).members) == 8


def test_a_scan_that_was_broken_off_keeps_its_whole_volumes():
    volume, rest = group(stack(6, temporal_position="1") + stack(2, 6, temporal_position="2"))
    assert names(volume) == [0, 1, 2, 3, 4, 5]
    assert (rest.reason, rest.detail) == ("localizer", "2 slices")


def test_other_rows_or_spacing_are_explained_by_a_sub_series_or_refused():
    mixed = stack(4) + stack(4, 4, rows=16)
    found = only(mixed)
    assert found.reason == "mixed_series"
    assert len(found.item.members) == 8
    assert [len(item.members) for item in group(stack(4, stack="1") + stack(4, 4, rows=16, stack="2"))] == [4, 4]
    assert only([*stack(4), header(4, 10.0, spacing=(0.5, 0.7))]).reason == "mixed_series"
    assert only([*stack(4), header(4, 10.0, rescale_type="US")]).reason == "mixed_series"
    assert only([*stack(4), header(4, 10.0, slope=2.0)]).members  # slopes may differ: PET


def test_copies_of_a_slice_are_set_aside_and_named():
    slices = stack(5)
    copies = [dataclasses.replace(one, path=f"copy/{one.path}") for one in slices[:2]]
    volume, rest = group(slices + copies)
    assert names(volume) == [0, 1, 2, 3, 4]
    assert (rest.reason, rest.detail, rest.item.members) == ("copied_slice", "2 slices", ("copy/000.dcm", "copy/001.dcm"))


@pytest.mark.parametrize("uid", ["2.25.3.2", "2.25.99", None])
def test_two_images_at_one_position_are_refused(uid):
    # The third one has the UID of another slice and differs from it, or has none.
    found = only([*stack(5), header(77, 5.0, instance_uid=uid)])
    assert (found.reason, found.detail) == ("duplicate_slices", "6 slices at 5 positions")


def test_positions_that_differ_by_rounding_alone_are_one():
    slices = stack(6) + [header(10 + n, 2.5 * n + 1e-9 * n) for n in range(6)]
    assert only(slices).detail == "12 slices at 6 positions"


def test_scouts_and_short_series_are_localizers():
    scouts = [header(90 + n, 3.0 * n, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")) for n in range(5)]
    volume, rest = group(stack(5) + scouts)
    assert names(volume) == [0, 1, 2, 3, 4]
    assert (rest.reason, rest.detail) == ("localizer", "5 slices")
    assert only(stack(3)).reason == "localizer"
    assert only(stack(3), least_slices=3).members
    assert only(stack(1), least_slices=2).reason == "localizer"


def test_slices_without_a_position_are_named():
    assert only(stack(5, position=None)).reason == "no_position"
    assert only(stack(5, position=(0.0, 1e300, 0.0))).reason == "no_position"
    assert only(stack(5, orientation=(1e300,) * 6)).reason == "no_position"
    assert only(stack(5, orientation=None)).detail == "5 of 5 slices"
    volume, rest = group([*stack(5), header(9, position=None)])
    assert len(volume.members) == 5
    assert (rest.reason, rest.detail) == ("no_position", "1 of 6 slices")


@pytest.mark.parametrize(
    "fields",
    [{"spacing": None}, {"orientation": (1, 0, 0, 1, 0, 0)}, {"orientation": (0,) * 6}, {"orientation": (2, 0, 0, 0, 1, 0)}],
)
def test_fields_that_the_place_depends_on_must_be_sound(fields):
    assert only(stack(5, **fields)).reason == "bad_header"


def test_several_orientations_are_several_volumes():
    sagittal = [header(20 + n, position=(4.0 * n, 0.0, 0.0), orientation=SAGITTAL) for n in range(5)]
    assert sorted(map(names, group(stack(4) + sagittal))) == [[0, 1, 2, 3], [24, 23, 22, 21, 20]]
    found = only(stack(3) + sagittal[:3])
    assert (found.reason, found.detail) == ("mixed_orientation", "2 orientations in 6 slices")
    assert len(found.item.members) == 6
    volume, rest = group(stack(6) + sagittal[:1])
    assert (len(volume.members), rest.reason) == (6, "localizer")


def test_rounded_positions_and_cosines_are_forgiven():
    slices = [
        header(
            n, position=(1.0, round(0.333333 * n, 2), round(0.7 * n + 0.004 * (n % 2), 2)), orientation=(1, 1e-5 * n, 0, 0, 1, 0)
        )
        for n in range(8)
    ]
    assert only(slices).reason == "gantry_tilt"  # 25 degrees are not
    slices = [dataclasses.replace(one, position=(1.0, 0.01 * (one.instance_number % 2), one.position[2])) for one in slices]
    assert len(only(slices).members) == 8


@pytest.mark.parametrize(
    ("places", "reason", "detail"),
    [
        ([0, 1, 2, 4, 5], "missing_slices", "1 missing among 5"),
        ([0, 1, 3, 6], "missing_slices", "3 missing among 4"),
        ([0, 2, 4, 5, 7], "missing_slices", "3 missing among 5"),
        ([0, 1, 2, 3.5, 4.5], "uneven_spacing", "2.500 to 3.750 mm"),
        ([0, 1, 2.05, 3, 4], "uneven_spacing", "2.375 to 2.625 mm"),
    ],
)
def test_distances_must_be_even(places, reason, detail):
    found = only([header(n, 2.5 * place) for n, place in enumerate(places)])
    assert (found.reason, found.detail) == (reason, detail)


@pytest.mark.parametrize("step", [(0.0, 0.5, 2.5), (0.0, -0.3, 2.5), (0.2, 0.0, 2.5)])
def test_a_tilted_gantry_is_refused(step):
    found = only([header(n, position=tuple(n * np.array(step))) for n in range(6)])
    assert found.reason == "gantry_tilt"


def test_a_slow_drift_is_a_tilt_too():
    found = only([header(n, position=(0.0, 0.02 * n, 1.0 * n)) for n in range(50)])
    assert (found.reason, found.detail) == ("gantry_tilt", "0.020 mm from slice to slice, 1.1 degrees")


def test_details_hold_no_identifiers():
    secret = "MEIER"
    slices = stack(3, series_uid=secret, stack=secret, image_type=(secret,), rescale_type=secret, photometric=secret)
    for found in (*group(slices), *group(slices + slices[:1]), *group([*slices, header(8, rows=3, series_uid=secret)])):
        assert secret not in found.detail


REAL = {
    "gantrytilting/001": ("gantry_tilt", 4),
    "notavolume/001": ("duplicate_slices", 4),  # one position, four acquisitions of one slice
    "slicecount/001": ("localizer", 2),
    "sliceincrement/001": ("missing_slices", 4),
    "sliceincrement/002": ("missing_slices", 4),  # tilted besides
    "sliceorientation/001": ("mixed_orientation", 4),
}


@pytest.mark.parametrize("folder", REAL)
def test_real_series_that_are_no_volumes(shared_data, folder):
    root = shared_data / "dicom" / "malformed" / "series" / folder
    if not root.is_dir():
        pytest.skip("the malformed series are absent")
    paths = find_files(root, ["*.dcm"])
    found = only([one for path in paths for one in scan(root, Item(path))])
    assert (found.reason, len(found.item.members)) == REAL[folder]
    assert sorted(found.item.members) == paths


def functional_groups(z: float, time: int, echo: float) -> Dataset:
    def sequence(**elements):
        inner = Dataset()
        for keyword, value in elements.items():
            setattr(inner, keyword, value)
        return [inner]

    groups = Dataset()
    groups.PlanePositionSequence = sequence(ImagePositionPatient=[1, 2, z])
    groups.FrameContentSequence = sequence(StackID="1", TemporalPositionIndex=time, FrameAcquisitionNumber=time)
    groups.MREchoSequence = sequence(EffectiveEchoTime=echo)
    groups.PixelValueTransformationSequence = sequence(RescaleSlope=2.0 * time, RescaleIntercept=-1, RescaleType="US")
    return groups


def test_headers_of_an_enhanced_object_come_from_its_functional_groups(write_dicom):
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(SAGITTAL)
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.6]
    frames = [(z, time) for z in range(4) for time in (1, 2)]
    elements = {
        "NumberOfFrames": len(frames),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": [functional_groups(0, time, 30.0) for _, time in frames],
        "SeriesInstanceUID": "2.25.7",
    }
    for groups, (z, _) in zip(elements["PerFrameFunctionalGroupsSequence"], frames, strict=True):
        groups.PlanePositionSequence[0].ImagePositionPatient = [3.0 * z, 0, 0]
    pixels = np.zeros((len(frames), 3, 4), np.uint16)
    root = write_dicom(pixels[0], PixelData=pixels.tobytes(), **elements)
    headers = scan(root, Item("image.dcm"))
    assert [one.frame for one in headers] == list(range(8))
    assert {one.orientation for one in headers} == {SAGITTAL}
    assert (headers[3].temporal_position, headers[3].slope, headers[3].intercept, headers[3].spacing) == (
        "2",
        4.0,
        -1.0,
        (0.5, 0.6),
    )
    first, second = group(headers)
    # The normal of these cosines points to the right, so that the order runs against x.
    assert (first.path, first.members) == ("image.dcm", ("image.dcm",) * 4)
    assert sorted([first.frames, second.frames]) == [(6, 4, 2, 0), (7, 5, 3, 1)]
    broken = write_dicom(pixels[0], PixelData=pixels.tobytes(), **{**elements, "NumberOfFrames": 9})
    (found,) = scan(broken, Item("image.dcm"))
    assert (found.reason, found.detail) == ("bad_header", "9 frames, 8 functional groups")


def test_many_frames_without_places_are_one_series_without_positions(write_dicom):
    root = write_dicom(np.zeros((3, 4), np.uint8), NumberOfFrames=2**30)
    (found,) = group(scan(root, Item("image.dcm")))
    assert found.reason == "no_position"


def test_files_that_are_no_images_are_refused_by_scan(write_dicom):
    root = write_dicom(np.zeros((3, 4), np.uint8), Modality="RTDOSE")
    (root / "page.dcm").write_text("<html>")
    write_dicom(np.zeros((3, 4), np.uint8), "bare.dcm", Rows=None)
    write_dicom(np.zeros((3, 4), np.uint8), "slope.dcm", RescaleSlope="1e400")
    reasons = {path: scan(root, Item(path))[0].reason for path in ("image.dcm", "page.dcm", "bare.dcm", "slope.dcm", "none.dcm")}
    assert reasons == {
        "image.dcm": "no_pixels",
        "page.dcm": "not_dicom",
        "bare.dcm": "no_pixels",
        "slope.dcm": "bad_header",
        "none.dcm": "unreadable",
    }
