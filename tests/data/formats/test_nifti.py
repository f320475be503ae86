"""NIfTI: voxels, affines and display order against nibabel, label maps, and files that must be refused by name."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medssl.data.card import ValueSource
from medssl.data.formats.items import Image, Item, Reject, Volume
from medssl.data.formats.nifti import NiftiReader
from medssl.data.formats.options import MaskOptions, ReadOptions
from medssl.errors import CardError

READER = NiftiReader()
VOLUMES = ReadOptions(units="volumes")
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ np.diag([0.7, 1.1, 2.5]), np.array([-30.0, 12.0, 55.0])
)
TURNS = ((0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0))


def random_volume(shape=(5, 6, 7), dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def write(path, data, affine=OBLIQUE, **header):
    image = nib.Nifti1Image(data, affine)
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)
    return path.parent


def patched(path, position, data):
    """The header of a file that nibabel would not write."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    content[position : position + len(data)] = data
    with opened(path, "wb") as file:
        file.write(bytes(content))


def read(root, name="a.nii.gz", options=VOLUMES, **item):
    return list(READER.read(root, Item(name, **item), options=options))


def read_one(root, name="a.nii.gz", options=VOLUMES, **item):
    (found,) = read(root, name, options, **item)
    return found


def units_of(found):
    return (
        found.voxels * found.slope + found.intercept
        if isinstance(found, Volume)
        else found.pixels * found.slope + found.intercept
    )


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ"])
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_volumes_are_turned_as_nibabel_turns_them(tmp_path, name, turn, flips):
    affine = OBLIQUE[:, [*turn, 3]] @ np.diag([*flips, 1])
    root = write(tmp_path / "a.nii", random_volume(), affine)
    (tmp_path / name).write_bytes(
        (root / "a.nii").read_bytes() if name == "a.nii" else gzip.compress((root / "a.nii").read_bytes())
    )
    volume = read_one(root, name)
    expected = nib.as_closest_canonical(nib.load(root / "a.nii"))
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert np.allclose(volume.affine, expected.affine, atol=1e-5)
    assert np.array_equal(volume.voxels, np.asarray(expected.dataobj).transpose(2, 1, 0))
    assert volume.voxels.dtype == np.int16
    assert volume.voxels.flags.c_contiguous
    assert (volume.window, volume.mask, volume.syntax) == (None, None, "NIfTI")
    assert volume.header.spacing_slice == pytest.approx(np.linalg.norm(expected.affine[:3, 2]))


@pytest.mark.parametrize(
    ("axis", "row_runs", "column_runs"),
    [("axial", (0, -1, 0), (-1, 0, 0)), ("coronal", (0, 0, -1), (-1, 0, 0)), ("sagittal", (0, 0, -1), (0, -1, 0))],
)
def test_slices_are_in_radiological_display_order(tmp_path, axis, row_runs, column_runs):
    # Each voxel tells its own place: 16 R, 4 A, 1 S.
    i, j, k = np.meshgrid(np.arange(4), np.arange(4), np.arange(4), indexing="ij")
    root = write(tmp_path / "a.nii.gz", (16 * i + 4 * j + k).astype(np.uint8), np.diag([2.0, 3.0, 5.0, 1.0]))
    images = read(root, options=ReadOptions(units="slices", axis=axis))
    assert [image.header.slice_index for image in images] == [image.header.frame for image in images] == [0, 1, 2, 3]
    worth = np.array([16, 4, 1])
    through = 1 - np.abs(row_runs) - np.abs(column_runs)
    for index, image in enumerate(images):
        pixels = image.pixels.astype(int)
        assert (np.diff(pixels, axis=0) == np.dot(row_runs, worth)).all()
        assert (np.diff(pixels, axis=1) == np.dot(column_runs, worth)).all()
        size = np.array([2.0, 3.0, 5.0])
        assert image.header.spacing == (np.abs(row_runs) @ size, np.abs(column_runs) @ size)
        assert image.header.spacing_slice == through @ size
        # LPS: x and y change their signs.
        assert np.allclose(image.header.orientation, np.concatenate([column_runs, row_runs]) * np.tile([-1, -1, 1], 2))
        first = np.array(np.unravel_index(pixels[0, 0], (4, 4, 4)))
        assert first @ through == index
        assert np.allclose(image.header.position, first * size * [-1, -1, 1])


def test_positions_of_oblique_slices_lead_back_to_their_voxels(tmp_path):
    data = random_volume((4, 5, 6))
    root = write(tmp_path / "a.nii.gz", data)
    inverse = np.linalg.inv(OBLIQUE)
    for axis in ("axial", "coronal", "sagittal"):
        for image in read(root, options=ReadOptions(units="images", axis=axis)):
            header = image.header
            column, row = np.array(header.orientation[:3]), np.array(header.orientation[3:])
            for place in ((0, 0), (1, 2), (3, 1)):
                lps = header.position + row * place[0] * header.spacing[0] + column * place[1] * header.spacing[1]
                voxel = nib.affines.apply_affine(inverse, lps * [-1, -1, 1])
                assert np.allclose(voxel, np.rint(voxel), atol=1e-4)
                assert data[tuple(np.rint(voxel).astype(int))] == image.pixels[place]


def test_a_file_of_one_slice_is_that_slice_whatever_the_axis(tmp_path):
    data = random_volume((5, 6))
    root = write(tmp_path / "a.nii.gz", data, np.eye(4))
    for axis in ("axial", "coronal"):
        image = read_one(root, options=ReadOptions(axis=axis))
        assert np.array_equal(image.pixels, data.T[::-1, ::-1])


def test_empty_slices_are_left_out_and_counted_in_one_reject(tmp_path):
    data = random_volume((5, 6, 7))
    data[:, :, [0, 1, 6]] = 0
    *images, reject = read(write(tmp_path / "a.nii.gz", data, np.eye(4)), options=ReadOptions(units="slices"))
    assert [image.header.slice_index for image in images] == [2, 3, 4, 5]
    assert (reject.reason, reject.detail) == ("constant", "3 of 7 slices")
    assert {image.full_range for image in images} == {(0.0, float(data.max()))}


@pytest.mark.parametrize(
    ("dtype", "kept"), [("u1", "u1"), ("i1", "i2"), ("i2", "i2"), ("u2", "u2"), (">i2", "i2"), (">u2", "u2")]
)
def test_small_integers_are_kept_as_they_are(tmp_path, dtype, kept):
    info = np.iinfo(dtype)
    data = np.array([info.min, 0, 1, info.max], dtype).reshape(2, 2, 1)
    image = nib.Nifti1Image(data, np.eye(4), nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<"))
    image.header.set_data_dtype(dtype)
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_one(tmp_path)
    assert volume.voxels.dtype == np.dtype(kept)
    assert volume.voxels.dtype.isnative
    assert np.array_equal(volume.voxels, data.transpose(2, 1, 0))
    assert (volume.slope, volume.intercept, volume.full_range) == (1.0, 0.0, (info.min, info.max))


@pytest.mark.parametrize(
    ("dtype", "low", "kept"), [("<i4", -40, "i2"), ("<f8", 0, "u2"), ("<f4", -(2**20), "u2"), ("<u4", 2**31, "u2")]
)
def test_whole_numbers_that_span_16_bits_are_kept_exactly(tmp_path, dtype, low, kept):
    data = (np.arange(60).reshape(3, 4, 5) + low).astype(dtype)
    volume = read_one(write(tmp_path / "a.nii.gz", data, np.eye(4)))
    assert volume.voxels.dtype == np.dtype(kept)
    assert volume.slope == 1
    assert np.array_equal(units_of(volume), data.transpose(2, 1, 0).astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_other_numbers_are_quantised_by_one_map(tmp_path, dtype):
    data = (np.random.default_rng(0).normal(0, 1e5, (5, 6, 7)) + 0.5).astype(dtype)
    volume = read_one(write(tmp_path / "a.nii.gz", data, np.eye(4)))
    assert volume.voxels.dtype == np.uint16
    assert (volume.voxels.min(), volume.voxels.max()) == (0, 65535)
    assert np.abs(units_of(volume) - data.transpose(2, 1, 0)).max() <= 0.51 * volume.slope
    assert volume.full_range == pytest.approx((data.min(), data.max()))


def test_scl_slope_and_inter_map_to_units(tmp_path):
    data = random_volume()
    root = write(tmp_path / "a.nii", data)
    patched(root / "a.nii", 112, np.array([2.5, -1024], "<f4").tobytes())
    volume = read_one(root, "a.nii")
    assert (volume.slope, volume.intercept) == (2.5, -1024.0)
    assert np.allclose(units_of(volume), nib.load(root / "a.nii").get_fdata().transpose(2, 1, 0))
    images = read(root, "a.nii", ReadOptions(units="slices"))
    assert {(image.slope, image.intercept) for image in images} == {(2.5, -1024.0)}


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_is_none_is_one(tmp_path, slope):
    root = write(tmp_path / "a.nii", random_volume())
    patched(root / "a.nii", 112, np.array([slope, 7], "<f4").tobytes())
    volume = read_one(root, "a.nii")
    assert (volume.slope, volume.intercept) == (1.0, 0.0)


def test_stray_voxels_that_are_not_finite_become_the_lowest(tmp_path):
    data = np.random.default_rng(0).normal(size=(10, 10, 10)).astype(np.float32)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = read_one(write(tmp_path / "a.nii.gz", data, np.eye(4)))
    assert (volume.voxels[:3, 0, 0] == 0).all()
    data[0, :2] = np.nan
    reject = read_one(write(tmp_path / "a.nii.gz", data, np.eye(4)))
    assert (reject.reason, reject.detail) == ("non_finite", "20 of 1000 voxels")


def test_both_codes_0_takes_pixdim_as_nibabel_does(tmp_path):
    root = write(tmp_path / "a.nii", random_volume(), np.diag([2.0, 3.0, 4.0, 1.0]), sform_code=0, qform_code=0)
    expected = nib.as_closest_canonical(nib.load(root / "a.nii"))
    volume = read_one(root, "a.nii")
    assert np.allclose(volume.affine, expected.affine)
    assert np.array_equal(volume.voxels, np.asarray(expected.dataobj).transpose(2, 1, 0))


def test_micrometres_are_turned_to_millimetres(tmp_path):
    root = write(tmp_path / "a.nii", random_volume(), np.diag([500.0, 500.0, 1000.0, 1.0]), xyzt_units=3)
    assert read_one(root, "a.nii").header.spacing_slice == pytest.approx(1.0)


def test_a_fourth_axis_is_refused_or_split(tmp_path):
    data = random_volume((4, 5, 6, 3))
    root = write(tmp_path / "a.nii.gz", data, np.eye(4))
    reject = read_one(root)
    assert (reject.reason, reject.detail) == ("four_dimensional", "3 volumes")
    volumes = read(root, options=ReadOptions(units="volumes", time="split"))
    assert [volume.header.frame for volume in volumes] == [0, 1, 2]
    for time, volume in enumerate(volumes):
        assert np.array_equal(volume.voxels, data[..., time].transpose(2, 1, 0))
    frames = [image.header.frame for image in read(root, options=ReadOptions(units="slices", time="split"))]
    assert len(set(frames)) == 18
    assert frames == sorted(frames)


def test_single_axes_beyond_the_third_are_squeezed(tmp_path):
    data = random_volume((4, 5, 6, 1, 1))
    assert read_one(write(tmp_path / "a.nii.gz", data, np.eye(4))).voxels.shape == (6, 5, 4)


def test_large_volumes_are_read_twice_and_come_out_the_same(tmp_path, monkeypatch):
    data = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    root = write(tmp_path / "a.nii.gz", data)
    held = read_one(root)
    monkeypatch.setattr("medssl.data.formats.nifti_file.HELD", 1)
    monkeypatch.setattr("medssl.data.formats.nifti_file._BLOCK", 50)
    again = read_one(root)
    assert np.array_equal(held.voxels, again.voxels)
    assert (held.slope, held.intercept) == (again.slope, again.intercept)


def test_members_of_archives_are_found_and_read(tmp_path):
    write(tmp_path / "a.nii.gz", random_volume())
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(tmp_path / "a.nii.gz", "x/a.nii.gz")
        archive.writestr("x/readme.txt", "no image")
    assert [item.path for item in READER.find(tmp_path)] == ["a.nii.gz", "set.zip!/x/a.nii.gz"]
    assert np.array_equal(read_one(tmp_path, "set.zip!/x/a.nii.gz").voxels, read_one(tmp_path).voxels)


HEADER_FAULTS = {
    "dim_0": (40, np.array([9], "<i2"), "bad_header"),
    "dim_negative": (42, np.array([-5], "<i2"), "bad_header"),
    "dim_zero": (44, np.array([0], "<i2"), "bad_header"),
    "dim_giant": (42, np.array([32767] * 3, "<i2"), "too_large"),
    "dim_longer_than_the_file": (42, np.array([500] * 3, "<i2"), "truncated"),
    "time_giant": (40, np.array([7, 5, 6, 7, 32767, 32767, 32767], "<i2"), "too_large"),
    "complex": (70, np.array([32, 64], "<i2"), "unsupported_type"),
    "rgb": (70, np.array([128, 24], "<i2"), "unsupported_type"),
    "float128": (70, np.array([1536, 128], "<i2"), "unsupported_type"),
    "unknown_type": (70, np.array([4711, 16], "<i2"), "unsupported_type"),
    "pixdim_zero": (80, np.array([0.0], "<f4"), "bad_header"),
    "pixdim_nan": (84, np.array([np.nan], "<f4"), "bad_header"),
    "offset_nan": (108, np.array([np.nan], "<f4"), "bad_header"),
    "offset_giant": (108, np.array([1e30], "<f4"), "bad_header"),
    "offset_in_the_header": (108, np.array([8.0], "<f4"), "bad_header"),
    "inter_nan": (112, np.array([1, np.nan], "<f4"), "bad_header"),
    "slope_beyond_numbers": (112, np.array([1e38, 0], "<f4"), None),
    "singular_affine": (280, np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], "<f4"), "bad_header"),
    "empty_affine": (280, np.zeros(12, "<f4"), "bad_header"),
    "nan_affine": (280, np.full(12, np.nan, "<f4"), "bad_header"),
    "pair": (344, b"ni1\0", "unsupported_type"),
    "no_magic": (344, b"\0\0\0\0", "not_nifti"),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_headers_that_are_refused(tmp_path, fault, name):
    position, value, reason = HEADER_FAULTS[fault]
    root = write(tmp_path / name, random_volume())
    patched(root / name, position, value if isinstance(value, bytes) else value.tobytes())
    found = read_one(root, name)
    if reason is None:
        assert isinstance(found, Volume)
    else:
        assert found.reason == reason


def test_nifti_2_is_refused_by_name(tmp_path):
    nib.Nifti2Image(random_volume(), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    found = read_one(tmp_path)
    assert (found.reason, found.detail) == ("unsupported_type", "NIfTI-2")


def test_damaged_files_are_refused_by_name(tmp_path):
    root = write(tmp_path / "good.nii.gz", np.random.default_rng(0).integers(0, 2**15, (20, 20, 20)).astype(np.int16))
    packed = (root / "good.nii.gz").read_bytes()
    page = b"<!DOCTYPE html><html>not found</html>"
    middle = len(packed) // 2
    cases = {
        "truncated": [
            packed[:middle],
            packed[:40],
            packed[:-4],
            b"",
            gzip.decompress(packed)[:5000],
            gzip.decompress(packed)[:200],
        ],
        "not_nifti": [page, gzip.compress(page), page * 20, gzip.compress(page * 20), bytes(400)],
        "damaged_nifti": [packed[:-8] + bytes(8), packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :]],
    }
    for reason, contents in cases.items():
        for content in contents:
            (root / "a.nii.gz").write_bytes(content)
            found = read_one(root)
            assert found.reason == reason, (reason, len(content), found)
            assert read(root, options=ReadOptions(units="slices"))[-1].reason == reason


def test_bombs_cost_neither_memory_nor_time(tmp_path):
    root = write(tmp_path / "a.nii", random_volume((4, 4, 4)))
    plain = (root / "a.nii").read_bytes()
    # 256 MiB of zeros behind the voxels, 256 KiB packed.
    with gzip.open(root / "bomb.nii.gz", "wb", 9) as file:
        file.write(plain)
        for _ in range(256):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        assert read_one(root, "bomb.nii.gz").reason == "too_large"
        patched(root / "a.nii", 42, np.array([32767, 32767, 32767], "<i2").tobytes())
        assert read_one(root, "a.nii").reason == "too_large"
        (root / "small.nii.gz").write_bytes(gzip.compress((root / "a.nii").read_bytes()))
        assert read_one(root, "small.nii.gz").reason == "too_large"
        patched(root / "a.nii", 42, np.array([512, 512, 512], "<i2").tobytes())
        assert read_one(root, "a.nii").reason == "truncated"
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_constant_volumes_and_sets_of_colour_images_are_refused(tmp_path):
    root = write(tmp_path / "a.nii.gz", np.full((4, 4, 4), 7, np.int16))
    assert read_one(root).reason == "constant"
    assert read_one(root, options=ReadOptions(channels="rgb")).reason == "unsupported_type"


def test_a_link_out_of_the_root_is_refused(tmp_path):
    write(tmp_path / "a.nii.gz", random_volume())
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.nii.gz").symlink_to(tmp_path / "a.nii.gz")
    assert read_one(root).reason == "outside_root"


MASKS = MaskOptions(image=r"^images/(?P<case>\w+)\.nii", mask=r"^labels/(?P<case>\w+)\.nii")
WITH_MASKS = ReadOptions(units="volumes", masks=MASKS)


@pytest.fixture
def pair(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    turned = OBLIQUE[:, [2, 0, 1, 3]] @ np.diag([-1, 1, 1, 1])
    write(tmp_path / "images" / "a.nii.gz", random_volume(), turned)
    write(tmp_path / "labels" / "a.nii.gz", random_volume(seed=1) % 4, turned)
    return tmp_path, turned


def read_pair(root, options=WITH_MASKS):
    (item,) = READER.find(root, options=options)
    return list(READER.read(root, item, options=options))


def test_label_maps_are_turned_with_their_images(pair):
    root, _ = pair
    (volume,) = read_pair(root)
    expected = np.asarray(nib.as_closest_canonical(nib.load(root / "labels" / "a.nii.gz")).dataobj)
    assert volume.mask.dtype == np.uint8
    assert np.array_equal(volume.mask, expected.transpose(2, 1, 0))
    for axis in ("axial", "coronal", "sagittal"):
        images = read_pair(root, ReadOptions(units="slices", axis=axis, masks=MASKS))
        paired = {(value, label) for image in images for value, label in zip(image.pixels.flat, image.mask.flat, strict=True)}
        assert paired == set(zip(volume.voxels.flat, volume.mask.flat, strict=True))


def test_label_maps_that_do_not_fit_are_refused(pair):
    root, affine = pair
    path = root / "labels" / "a.nii.gz"
    mask = random_volume(seed=1) % 4
    moved = affine + np.eye(4, k=3) * 0.01
    cases = [
        (mask[:-1], affine, "mask_mismatch"),
        (mask, moved, "mask_mismatch"),
        (mask - 1, affine, "mask_values"),
        (mask * 100, affine, "mask_values"),
        (mask + np.float32(0.5), affine, "mask_values"),
        (np.where(mask == 1, np.nan, mask).astype(np.float32), affine, "mask_values"),
        (np.stack([mask, mask], axis=-1), affine, "four_dimensional"),
    ]
    for data, where, reason in cases:
        write(path, data, where)
        assert [found.reason for found in read_pair(root)] == [reason]
    write(path, mask.astype(np.float64), affine + np.eye(4, k=3) * 1e-4)
    assert isinstance(read_pair(root)[0], Volume)
    path.write_bytes(path.read_bytes()[:100])
    (found,) = read_pair(root)
    assert found.reason == "truncated"
    assert found.detail.startswith("label map")


def test_orphans_are_named(pair):
    root, affine = pair
    write(root / "images" / "b.nii.gz", random_volume(), affine)
    write(root / "labels" / "c.nii.gz", random_volume(), affine)
    write(root / "labels" / "a.nii", random_volume(), affine)
    write(root / "odd.nii.gz", random_volume(), affine)
    found = READER.find(root, options=WITH_MASKS)
    rejected = [(one.item.path, one.reason) for one in found if isinstance(one, Reject)]
    assert rejected == [
        ("images/b.nii.gz", "no_mask"),
        ("labels/a.nii.gz", "no_image"),
        ("labels/c.nii.gz", "no_image"),
        ("odd.nii.gz", "no_mask"),
    ]
    assert [one for one in found if isinstance(one, Item)] == [Item("images/a.nii.gz", mask="labels/a.nii")]
    optional = ReadOptions(units="volumes", masks=MASKS.model_copy(update={"required": False}))
    without = [one.path for one in READER.find(root, options=optional) if isinstance(one, Item) and one.mask is None]
    assert without == ["images/b.nii.gz", "odd.nii.gz"]


@pytest.mark.parametrize("pattern", ["(", r"images/\w+"])
def test_patterns_that_cannot_pair_are_refused(tmp_path, pattern):
    with pytest.raises(CardError, match=r"read\.masks\.mask"):
        READER.find(tmp_path, options=ReadOptions(masks=MaskOptions(image=r"(?P<case>\w)", mask=pattern)))


def test_the_hippocampus_set_gives_260_pairs_and_three_orphans(shared_data):
    root = shared_data / "hippocampus"
    if not root.is_dir():
        pytest.skip("the hippocampus set is absent")
    card = yaml.safe_load((Path(__file__).parents[3] / "data_cards" / "hippocampus.yaml").read_text())
    options = ReadOptions.model_validate(card["read"])
    found = READER.find(root, card["files"]["include"], options=options)
    items = [one for one in found if isinstance(one, Item)]
    assert len(items) == 260
    assert [(one.reason, one.item.path) for one in found if isinstance(one, Reject)] == [
        ("no_mask", "images/hippocampus_118.nii.gz"),
        ("no_image", "labels/hippocampus_010.nii.gz"),
        ("no_image", "labels/hippocampus_281.nii.gz"),
    ]
    (patient,) = (ValueSource.model_validate(source) for source in card["patient"])
    assert patient.pattern
    dtypes = set()
    for item in items[::20]:
        (volume,) = READER.read(root, item, options=options)
        assert isinstance(volume, Volume), volume
        expected = nib.as_closest_canonical(nib.load(root / item.path))
        difference = np.abs(units_of(volume) - np.asarray(expected.dataobj).transpose(2, 1, 0))
        assert difference.max() <= (0.51 * volume.slope if volume.slope != 1 else 0)
        assert set(np.unique(volume.mask)) == {0, 1, 2}
        dtypes.add(volume.voxels.dtype)
    assert dtypes <= {np.dtype(np.uint8), np.dtype(np.uint16)}


def test_every_slice_of_a_real_volume_is_an_image(shared_data):
    path = "hippocampus/images/hippocampus_001.nii.gz"
    if not (shared_data / path).is_file():
        pytest.skip("the hippocampus set is absent")
    images = [one for one in READER.read(shared_data, Item(path)) if isinstance(one, Image)]
    assert {image.pixels.shape for image in images} == {nib.load(shared_data / path).shape[1::-1]}


def test_nothing_that_a_file_says_raises(tmp_path):
    source = random.Random(0)
    root = write(tmp_path / "a.nii", random_volume())
    whole = (root / "a.nii").read_bytes()
    reasons = set()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(source.choice((1, 2, 5))):
            position = source.randrange(352)
            content[position : position + 4] = source.choice((bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\1"))
        (root / "a.nii").write_bytes(content if source.random() < 0.5 else gzip.compress(bytes(content), 1))
        for found in read(root, "a.nii", ReadOptions(units="slices", axis="coronal", time="split")):
            reasons.add(found.reason if isinstance(found, Reject) else "image")
    assert {"image", "bad_header", "not_nifti", "unsupported_type"} <= reasons
    assert "unreadable" not in reasons
