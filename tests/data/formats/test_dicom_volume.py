"""A series read as a volume equals the same anatomy in NIfTI; slopes, padding and damage of single slices."""

from __future__ import annotations

import random
import zipfile

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from medssl.data.formats.dicom_volume import read_volume
from medssl.data.formats.finding import find_files
from medssl.data.formats.items import Image, Item, Reject, Volume
from medssl.data.formats.nifti import NiftiReader
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.series import group, scan
from medssl.errors import CardError

VOLUMES = ReadOptions(units="volumes")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ROTATION = nib.eulerangles.euler2mat(0.3, -0.2, 0.15)
SIZE = (0.7, 0.9, 2.5)  # mm between columns, rows, slices
# Along which LPS axes columns, rows and slices run: axial, coronal and sagittal acquisitions, slices in either direction.
PLANES = {
    "axial": np.eye(3),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float),
}


def smooth(shape=(6, 9, 8)) -> np.ndarray:
    """(slice, row, column) int16 without symmetries, of 12 bits and a sign."""
    k, j, i = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return (200 * k + 31 * j + 3 * i + (k * j * i) % 17 - 900).astype(np.int16)


def geometry(plane: str) -> np.ndarray:
    """LPS: from (column, row, slice, 1) to mm."""
    return nib.affines.from_matvec(ROTATION @ PLANES[plane] @ np.diag(SIZE), [-40.0, 25.0, 110.0])


def write_series(write_dicom, voxels, affine, prefix="", **elements):
    """`elements`: values of all slices, or lists of one a slice under a name that ends with `_each`."""
    order = list(range(len(voxels)))
    random.Random(3).shuffle(order)
    each = {key.removesuffix("_each"): elements.pop(key) for key in list(elements) if key.endswith("_each")}
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for number, pixels in enumerate(voxels):
        position = affine[:3, :3] @ [0, 0, number] + affine[:3, 3]
        cosines = np.concatenate([affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]])
        defaults = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": f"2.25.7.{number + 1}",
            "SeriesInstanceUID": "2.25.6",
            "StudyInstanceUID": "2.25.5",
            "PatientID": "P1",
            "Modality": "CT",
            "InstanceNumber": order[number] + 1,
            "ImagePositionPatient": [f"{value:.9g}" for value in position],
            "ImageOrientationPatient": [f"{value:.9g}" for value in cosines],
            "PixelSpacing": [f"{spacing[1]:.9g}", f"{spacing[0]:.9g}"],
            "RescaleSlope": 2,
            "RescaleIntercept": -1000,
            "WindowCenter": 40,
            "WindowWidth": 400,
        }
        values = {**defaults, **elements, **{key: value[number] for key, value in each.items()}}
        root = write_dicom(pixels, f"{prefix}{order[len(order) - 1 - number]:02}.dcm", **values)
    return root


def item_of(root, **options) -> Item:
    paths = find_files(root, ["**/*.dcm"])
    (item,) = group([one for path in paths for one in scan(root, Item(path))], ReadOptions(**options))
    return item


def read(root, options=VOLUMES, item=None, tags=()) -> list[Image | Volume | Reject]:
    return list(read_volume(root, item or item_of(root), tags, options))


def read_one(root, item=None) -> Volume | Reject:
    (found,) = read(root, item=item)
    return found


def units(found: Volume | Image) -> np.ndarray:
    return (found.voxels if isinstance(found, Volume) else found.pixels) * found.slope + found.intercept


@pytest.fixture(params=PLANES)
def twins(request, write_dicom):
    """The same anatomy as a DICOM series and as twin.nii.gz."""
    voxels, affine = smooth(), geometry(request.param)
    root = write_series(write_dicom, voxels, affine)
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), LPS @ affine)
    image.header.set_slope_inter(2, -1000)
    image.to_filename(root / "twin.nii")
    # nibabel stores values of its own choice unless they are written as they are.
    written = bytearray((root / "twin.nii").read_bytes())
    written[112:120] = np.array([2, -1000], "<f4").tobytes()
    written[352:] = voxels.astype("<i2").tobytes()
    (root / "twin.nii").write_bytes(bytes(written))
    return root


def test_a_series_equals_the_same_anatomy_in_nifti(twins):
    volume = read_one(twins)
    (twin,) = NiftiReader().read(twins, Item("twin.nii"), options=VOLUMES)
    assert np.allclose(volume.affine, twin.affine, atol=1e-4)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert np.array_equal(volume.voxels, twin.voxels)
    assert volume.voxels.dtype == twin.voxels.dtype == np.int16
    assert (volume.slope, volume.intercept) == (twin.slope, twin.intercept) == (2.0, -1000.0)
    assert volume.header.spacing == pytest.approx(twin.header.spacing, abs=1e-4)
    assert volume.header.spacing_slice == pytest.approx(twin.header.spacing_slice, abs=1e-4)
    expected = nib.as_closest_canonical(nib.load(twins / "twin.nii"))
    assert np.array_equal(units(volume), expected.get_fdata().transpose(2, 1, 0))
    assert np.allclose(volume.affine, expected.affine, atol=1e-4)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_slices_of_a_series_equal_those_of_its_nifti(twins, axis):
    options = ReadOptions(units="slices", axis=axis)
    images, others = read(twins, options), list(NiftiReader().read(twins, Item("twin.nii"), options=options))
    assert len(images) == len(others) > 5
    for image, other in zip(images, others, strict=True):
        assert np.array_equal(image.pixels, other.pixels)
        assert np.allclose(image.header.position, other.header.position, atol=1e-3)
        assert np.allclose(image.header.orientation, other.header.orientation, atol=1e-5)
        assert image.header.spacing == pytest.approx(other.header.spacing, abs=1e-4)
        assert image.header.spacing_slice == pytest.approx(other.header.spacing_slice, abs=1e-4)
        assert (image.header.slice_index, image.header.frame) == (other.header.slice_index, other.header.frame)
        assert image.window == (40.0, 400.0)


def test_axial_slices_of_an_axial_series_are_its_own_images(write_dicom):
    voxels = smooth()
    affine = nib.affines.from_matvec(np.diag(SIZE), [-40.0, 25.0, 110.0])
    root = write_series(write_dicom, voxels, affine)
    images = read(root, ReadOptions(units="slices"))
    for number, image in enumerate(images):
        assert np.array_equal(image.pixels, voxels[number])
        assert np.allclose(image.header.position, affine[:3, 3] + [0, 0, 2.5 * number])
        assert image.header.orientation == (1, 0, 0, 0, 1, 0)
        assert image.header.spacing == pytest.approx((0.9, 0.7))


def test_what_else_a_volume_takes_from_its_headers(write_dicom):
    root = write_series(
        write_dicom,
        smooth(),
        geometry("axial"),
        Manufacturer="SIEMENS",
        BodyPartExamined="HEAD",
        BurnedInAnnotation_each=["NO"] * 4 + ["YES", "NO"],
        WindowCenter_each=[40, 50, 60, 70, 80, 90],
    )
    (volume,) = read(root, tags=["BodyPartExamined"])
    header = volume.header
    assert (header.patient_id, header.study_uid, header.series_uid, header.modality) == ("P1", "2.25.5", "2.25.6", "CT")
    assert (header.vendor, header.tags, header.frame) == ("siemens", {"BodyPartExamined": "HEAD"}, 0)
    assert (header.burned_in, header.flags) == (True, ("burned_in",))
    assert (volume.window, volume.window_function, volume.inverted) == ((40.0, 400.0), "linear", False)
    assert volume.full_range == (-(2.0**16) - 1000, 2.0**16 - 1002)
    assert volume.syntax == "Explicit VR Little Endian"
    assert volume.decoder.startswith("pydicom ")
    with pytest.raises(CardError):
        read(root, tags=["PatientID"])


def test_slices_of_one_value_belong_to_the_volume(write_dicom):
    voxels = smooth()
    voxels[0] = voxels[5] = -1000
    root = write_series(write_dicom, voxels, geometry("axial"))
    assert np.array_equal(read_one(root).voxels, voxels[:, ::-1, ::-1])
    *images, reject = read(root, ReadOptions(units="slices"))
    assert len(images) == 4
    assert (reject.reason, reject.detail) == ("constant", "2 of 6 slices")
    assert read_one(write_series(write_dicom, np.full_like(voxels, 7), geometry("axial"))).reason == "constant"


def test_padding_becomes_the_darkest_value_of_the_volume(write_dicom):
    voxels = smooth()
    least = voxels.min()
    voxels[3] = -2000
    voxels[2, :3] = -2000
    root = write_series(write_dicom, voxels, geometry("axial"), PixelPaddingValue=-2000)
    expected = np.where(voxels == -2000, least, voxels)[:, ::-1, ::-1]
    assert np.array_equal(read_one(root).voxels, expected)


def test_slopes_of_their_own_become_one_map_exactly_for_whole_units(write_dicom):
    voxels, slopes = smooth(), [1, 2, 3, 4, 5, 6]
    voxels[4] = 100
    root = write_series(write_dicom, voxels, geometry("axial"), RescaleSlope_each=slopes, RescaleIntercept=-7)
    volume = read_one(root)
    expected = voxels.astype(int) * np.array(slopes)[:, None, None] - 7
    assert np.array_equal(units(volume), expected[:, ::-1, ::-1])
    assert volume.voxels.dtype == np.int16
    assert volume.full_range == (expected.min(), expected.max())


def test_intercepts_of_their_own_become_one_map_exactly(write_dicom):
    voxels, intercepts = smooth(), [0, 0.5, -1, 2, 8, 0]
    root = write_series(write_dicom, voxels, geometry("axial"), RescaleSlope=0.25, RescaleIntercept_each=intercepts)
    volume = read_one(root)
    assert np.array_equal(units(volume), (voxels * 0.25 + np.array(intercepts)[:, None, None])[:, ::-1, ::-1])
    assert volume.slope == 0.25


def test_slopes_of_pet_become_one_map_to_16_bits(write_dicom):
    voxels = np.abs(smooth())
    slopes = [0.111, 0.237, 0.3, 0.41, 1.53, 0.0917]
    voxels[5] = 0
    root = write_series(write_dicom, voxels, geometry("axial"), RescaleSlope_each=slopes, RescaleIntercept=0)
    volume = read_one(root)
    expected = voxels * np.array(slopes)[:, None, None]
    assert volume.voxels.dtype == np.uint16
    assert np.abs(units(volume) - expected[:, ::-1, ::-1]).max() <= 0.51 * volume.slope
    assert volume.slope == pytest.approx((expected.max() - expected.min()) / 65535)


def test_32_bit_slices_become_16_bits(write_dicom):
    voxels = smooth().astype(np.int32) * 1000
    root = write_series(write_dicom, voxels, geometry("axial"))
    volume = read_one(root)
    assert volume.voxels.dtype == np.uint16
    assert np.abs(units(volume) - (voxels[:, ::-1, ::-1] * 2.0 - 1000)).max() <= 0.51 * volume.slope
    exact = read_one(write_series(write_dicom, smooth().astype(np.int32), geometry("axial")))
    assert np.array_equal(units(exact), smooth()[:, ::-1, ::-1] * 2.0 - 1000)


def test_a_slice_that_cannot_be_read_costs_the_volume_and_is_named(write_dicom):
    root = write_series(write_dicom, smooth(), geometry("axial"))
    item = item_of(root)
    path = root / item.members[3]
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    found = read_one(root, item)
    assert (found.item, found.reason) == (item, "truncated")
    assert found.detail.startswith("slice 4 of 6")
    path.write_bytes(b"<html>")
    assert (read_one(root, item).reason, read_one(root, item).detail) == ("not_dicom", "slice 4 of 6")
    path.unlink()
    assert read_one(root, item).reason == "unreadable"
    path.write_bytes((root / item.members[2]).read_bytes())
    assert read_one(root, item).reason == "duplicate_slices"
    path.write_bytes(whole)
    assert isinstance(read_one(root, item), Volume)
    turned = Item(item.path, members=item.members[::-1], frames=item.frames)
    assert read_one(root, turned).reason == "unreadable"
    assert read_one(root, Item(item.path, members=item.members, frames=(0, 0, 0, 9, 0, 0))).reason == "unreadable"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation_each": ["MONOCHROME1"] + ["MONOCHROME2"] * 5}, "mixed_series"),
        ({"PresentationLUTShape_each": ["INVERSE"] + ["IDENTITY"] * 5}, "mixed_series"),
        ({"RescaleSlope_each": [0, 1, 1, 1, 1, 1]}, "bad_header"),
        ({"PixelSpacing": None}, "bad_header"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused(write_dicom, elements, reason):
    root = write_series(write_dicom, smooth(), geometry("axial"), **elements)
    paths = find_files(root, ["*.dcm"])
    (found,) = group([one for path in paths for one in scan(root, Item(path))])
    if isinstance(found, Item):
        found = read_one(root, found)
    assert found.reason == reason


def test_volumes_beyond_the_bound_are_refused_before_their_pixels_are_read(write_dicom, monkeypatch):
    root = write_series(write_dicom, smooth(), geometry("axial"))
    monkeypatch.setattr("medssl.data.formats.dicom_volume.MAX_VOXELS", 6 * 9 * 8 - 1)
    monkeypatch.setattr("medssl.data.formats.dicom_volume._load", None)
    assert read_one(root).reason == "too_large"


def test_sets_of_colour_images_take_no_volumes(write_dicom):
    root = write_series(write_dicom, smooth(), geometry("axial"))
    (found,) = read(root, ReadOptions(units="volumes", channels="rgb"))
    assert found.reason == "unsupported_type"


def enhanced(voxels, affine, order):
    """The elements of a multi-frame object whose frames are the slices `order` of the stack."""

    def one(**elements):
        inner = Dataset()
        for keyword, value in elements.items():
            setattr(inner, keyword, value)
        return [inner]

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shared = Dataset()
    cosines = np.concatenate([affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]])
    shared.PlaneOrientationSequence = one(ImageOrientationPatient=[f"{value:.9g}" for value in cosines])
    shared.PixelMeasuresSequence = one(PixelSpacing=[f"{spacing[1]:.9g}", f"{spacing[0]:.9g}"])
    groups = []
    for number in order:
        frame = Dataset()
        position = affine[:3, :3] @ [0, 0, number] + affine[:3, 3]
        frame.PlanePositionSequence = one(ImagePositionPatient=[f"{value:.9g}" for value in position])
        frame.PixelValueTransformationSequence = one(RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU")
        frame.FrameContentSequence = one(TemporalPositionIndex=1 + number // len(voxels))
        groups.append(frame)
    return {
        "NumberOfFrames": len(order),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
        "SeriesInstanceUID": "2.25.6",
        "Modality": "CT",
    }


def test_frames_of_a_multi_frame_object_make_the_volume_that_single_slices_make(write_dicom, tmp_path):
    voxels, affine = smooth(), geometry("coronal")
    expected = read_one(write_series(write_dicom, voxels, affine))
    order = [3, 0, 5, 1, 4, 2]
    for path in tmp_path.glob("*.dcm"):
        path.unlink()
    stacked = np.ascontiguousarray(voxels[order])
    root = write_dicom(voxels[0], "many.dcm", PixelData=stacked.tobytes(), **enhanced(voxels, affine, order))
    item = item_of(root)
    assert item.members == ("many.dcm",) * 6
    assert [order[frame] for frame in item.frames] == list(range(6))
    volume = read_one(root, item)
    assert np.array_equal(volume.voxels, expected.voxels)
    assert np.allclose(volume.affine, expected.affine)
    assert (volume.slope, volume.intercept, volume.header.frame) == (2.0, -1000.0, item.frames[0])


def test_volumes_of_one_multi_frame_object_have_frames_of_their_own(write_dicom):
    voxels, affine = smooth(), geometry("axial")
    elements = enhanced(voxels, affine, range(12))
    for number, groups in enumerate(elements["PerFrameFunctionalGroupsSequence"]):
        position = elements["PerFrameFunctionalGroupsSequence"][number % 6].PlanePositionSequence[0].ImagePositionPatient
        groups.PlanePositionSequence[0].ImagePositionPatient = position
    root = write_dicom(voxels[0], "many.dcm", PixelData=np.concatenate([voxels, voxels + 1]).tobytes(), **elements)
    first, second = group(scan(root, Item("many.dcm")))
    assert (first.frames, second.frames) == (tuple(range(6)), tuple(range(6, 12)))
    assert np.array_equal(read_one(root, second).voxels, read_one(root, first).voxels + 1)
    frames = [image.header.frame for item in (first, second) for image in read(root, ReadOptions(units="slices"), item)]
    assert len(set(frames)) == 12


@pytest.mark.parametrize("folder", ["sliceincrement/002", "gantrytilting/001"])
def test_a_real_tilted_series_is_not_read_even_if_asked_for(shared_data, folder):
    root = shared_data / "dicom" / "malformed" / "series" / folder
    if not root.is_dir():
        pytest.skip("the malformed series are absent")
    paths = tuple(find_files(root, ["*.dcm"]))
    found = read_one(root, Item(paths[0], members=paths, frames=(0,) * len(paths)))
    assert found.reason in ("missing_slices", "gantry_tilt")


def test_a_real_series_equals_what_dicom2nifti_made_of_it(shared_data):
    root = shared_data / "dicom" / "malformed" / "series" / "slicecount"
    if not root.is_dir():
        pytest.skip("the malformed series are absent")
    headers = [one for path in find_files(root, ["**/*.dcm"]) for one in scan(root, Item(path))]
    (item,) = group(headers, ReadOptions(least_slices=2))
    volume = read_one(root, item)
    expected = nib.as_closest_canonical(nib.load(root / "001_ground_truth.nii.gz"))
    assert np.array_equal(units(volume), np.asarray(expected.dataobj).transpose(2, 1, 0))
    assert np.allclose(volume.affine, expected.affine, atol=1e-3)


def test_a_series_in_an_archive_is_the_same_volume(write_dicom, tmp_path):
    root = write_series(write_dicom, smooth(), geometry("sagittal"))
    expected = read_one(root)
    with zipfile.ZipFile(tmp_path / "exam.zip", "w") as archive:
        for path in find_files(root, ["*.dcm"]):
            archive.write(root / path, f"series/{path}")
    paths = find_files(root, ["exam.zip!/**"], archives=True)
    (item,) = group([one for path in paths for one in scan(root, Item(path))])
    assert item.path.startswith("exam.zip!/series/")
    assert np.array_equal(read_one(root, item).voxels, expected.voxels)


def test_polarity_and_negative_slopes_are_kept(write_dicom):
    root = write_series(write_dicom, smooth(), geometry("axial"), PhotometricInterpretation="MONOCHROME1", RescaleSlope=-2)
    volume = read_one(root)
    assert (volume.inverted, volume.slope) == (True, -2.0)
    assert volume.full_range[0] < volume.full_range[1]
    mixed = write_series(write_dicom, smooth(), geometry("axial"), RescaleSlope_each=[-2, -2, 2, 2, 2, 2])
    expected = smooth() * np.array([-2, -2, 2, 2, 2, 2])[:, None, None] - 1000
    assert np.array_equal(units(read_one(mixed)), expected[:, ::-1, ::-1])
