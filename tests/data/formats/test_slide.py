"""Slides: which tiles, at which scale, from which files, and what is refused."""

from __future__ import annotations

import builtins
import io
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

from medssl.data.formats import Image, Item, Reject, slide, slide_dicom, slide_grid
from medssl.data.formats.options import ReadOptions, SlideOptions
from medssl.data.formats.slide import SlideReader
from medssl.errors import CardError

READER = SlideReader()
GLASS = 245


def _options(channels: str = "rgb", **slide_options) -> ReadOptions:
    return ReadOptions(channels=channels, slide=SlideOptions(**slide_options))


def _read(root: Path, options: ReadOptions, name: str | None = None) -> list[Image | Reject]:
    items = READER.find(root, (name,) if name else (), (), options)
    return [found for item in items for found in ([item] if isinstance(item, Reject) else READER.read(root, item, (), options))]


def _picture(height: int, width: int, tissue: tuple[slice, slice] | None = None) -> np.ndarray:
    """Glass with a stained part, every pixel of which is different from its neighbours' and smooth at the scale of a tile."""
    y, x = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), GLASS, np.uint8)
    stain = np.stack([190 + 40 * np.sin(x / 97), 90 + 40 * np.sin(y / 61), 150 + 40 * np.cos((x + y) / 83)], axis=-1)
    part = tissue or (slice(0, height), slice(0, width))
    pixels[part] = stain[part].astype(np.uint8)
    return pixels


def _write_tiff(path: Path, levels: list[np.ndarray], mpp: float | None = None, tile: int = 128, **options) -> None:
    """A tiled TIFF of several pages, which OpenSlide reads as a pyramid."""
    scale = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(level, tile=(tile, tile), photometric="rgb", subfiletype=1 if number else 0, **scale, **options)


def test_tiles_of_a_tiled_tiff(tmp_path):
    pixels = _picture(700, 1000, (slice(200, 600), slice(100, 500)))
    _write_tiff(tmp_path / "a.tif", [pixels], mpp=0.5)
    assert openslide.OpenSlide.detect_format(tmp_path / "a.tif") == "generic-tiff"
    options = _options(tile=100)
    assert READER.find(tmp_path, options=options) == [Item("a.tif", 0, 70)]
    images = _read(tmp_path, options)
    assert [image.header.frame for image in images] == [row * 10 + column for row in range(2, 6) for column in range(1, 5)]
    for image in images:
        x, y, row, column = image.header.tile
        assert (x, y) == (100 * column, 100 * row)
        assert image.header.frame == 10 * row + column
        assert np.array_equal(image.pixels, pixels[y : y + 100, x : x + 100])
    header = images[0].header
    assert header.series_uid == "a.tif"
    assert header.tile_mpp == pytest.approx(0.5)
    assert header.spacing == pytest.approx((0.0005, 0.0005))
    assert (header.spacing_kind, header.study_uid, header.patient_id, header.modality) == ("pixel", None, None, None)
    assert (images[0].full_range, images[0].syntax) == ((0.0, 255.0), "slide, generic-tiff")


def test_every_tile_without_a_mask_and_incomplete_ones_dropped(tmp_path):
    _write_tiff(tmp_path / "a.tif", [_picture(230, 350, (slice(0, 50), slice(0, 50)))])
    found = _read(tmp_path, _options(tile=100, tissue=0.0))
    assert [one.header.tile[2:] if isinstance(one, Image) else one.item.start for one in found] == [(0, 0), 1, 2, 3, 4, 5]
    assert {one.reason for one in found[1:]} == {"constant"}


def test_blocks_are_the_tiles_of_the_whole(tmp_path, monkeypatch):
    _write_tiff(tmp_path / "a.tif", [_picture(500, 500, (slice(0, 500), slice(0, 300)))])
    options = _options(tile=50)
    whole = [image.header.frame for image in _read(tmp_path, options)]
    monkeypatch.setattr(slide, "BLOCK", 7)
    slide._opened.cache_clear()
    passes = []
    shares = slide_grid.tissue_shares
    monkeypatch.setattr(slide_grid, "tissue_shares", lambda *arguments: passes.append(1) or shares(*arguments))
    items = READER.find(tmp_path, options=options)
    assert [(item.start, item.stop) for item in items] == [(start, min(start + 7, 100)) for start in range(0, 100, 7)]
    assert [image.header.frame for item in items for image in READER.read(tmp_path, item, (), options)] == whole
    assert len(whole) == 60
    assert len(passes) == 1


def test_a_scale_is_reached_from_the_best_level_by_one_resize(tmp_path):
    full = _picture(1600, 1600)
    half = np.asarray(Pillow.fromarray(full).resize((800, 800), Pillow.Resampling.BOX))
    _write_tiff(tmp_path / "a.tif", [full, half], mpp=0.25)
    for mpp, source in ((0.25, full), (0.5, half)):
        images = _read(tmp_path, _options(tile=200, mpp=mpp))
        side = source.shape[0] // 200
        assert len(images) == side**2
        for image in images:
            x, y, row, column = image.header.tile
            assert (x, y) == (round(column * 200 * mpp / 0.25), round(row * 200 * mpp / 0.25))
            assert np.array_equal(image.pixels, source[row * 200 : row * 200 + 200, column * 200 : column * 200 + 200])
            assert image.header.tile_mpp == mpp
            assert image.header.spacing == (mpp / 1000, mpp / 1000)
    (first, *_) = _read(tmp_path, _options(tile=200, mpp=0.7))
    expected = np.asarray(Pillow.fromarray(full).resize((200, 200), Pillow.Resampling.BOX, box=(0, 0, 560, 560))).astype(int)
    assert np.abs(first.pixels - expected).max() <= 4


def test_antialiasing(tmp_path):
    """Stripes finer than the wanted pixels become their mean, not a pattern."""
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = (250, 120, 200)
    stripes[0, 0] = 255
    _write_tiff(tmp_path / "a.tif", [stripes], mpp=0.25)
    (image, *_) = _read(tmp_path, _options(tile=64, mpp=2.0, tissue=0.0))
    assert np.abs(image.pixels[2:-2, 2:-2].astype(int) - (125, 60, 100)).max() <= 3


def test_a_scale_that_the_slide_has_not(tmp_path):
    _write_tiff(tmp_path / "known.tif", [_picture(300, 300)], mpp=0.5)
    _write_tiff(tmp_path / "unknown.tif", [_picture(300, 300)])
    found = _read(tmp_path, _options(tile=100, mpp=0.25))
    assert [(one.item.path, one.reason) for one in found] == [("known.tif", "unsupported_type"), ("unknown.tif", "bad_header")]
    assert len(_read(tmp_path, _options(tile=100, mpp=0.48), "known.tif")) == 9  # a scanner's 0.5 is not exactly that


def test_a_slide_without_tissue_is_one_reject(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    _write_tiff(tmp_path / "a.tif", [generator.integers(243, 248, (600, 600, 3)).astype(np.uint8)])
    monkeypatch.setattr(slide, "BLOCK", 10)
    found = _read(tmp_path, _options(tile=100))
    assert [(one.item.start, one.reason) for one in found] == [(0, "no_tissue")]
    assert [one.reason for one in _read(tmp_path, _options(tile=1000))] == ["no_tissue"]


def test_a_slide_that_has_changed_is_read_anew(tmp_path):
    pixels = _picture(200, 200)
    _write_tiff(tmp_path / "a.tif", [pixels])
    item = Item("a.tif", 0, 4)
    options = _options(tile=100)
    assert len(list(READER.read(tmp_path, item, (), options))) == 4
    _write_tiff(tmp_path / "a.tif", [np.roll(pixels, 40, axis=0)[:, :, ::-1]])
    assert np.array_equal(next(READER.read(tmp_path, item, (), options)).pixels, np.roll(pixels, 40, axis=0)[:100, :100, ::-1])


def test_plain_files_are_small_slides(tmp_path):
    pixels = _picture(250, 350)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    Pillow.fromarray(pixels).save(tmp_path / "b.tif")
    for name in ("a.png", "b.tif"):
        images = _read(tmp_path, _options(tile=100), name)
        assert len(images) == 6
        assert np.array_equal(images[-1].pixels, pixels[100:200, 200:300])
        assert images[0].header.tile_mpp is None


def test_grey_cards_refuse_colour_and_take_grey(tmp_path):
    Pillow.fromarray(_picture(200, 200)).save(tmp_path / "a.png")
    assert {one.reason for one in _read(tmp_path, _options("grey", tile=100))} == {"colour"}
    grey = np.add.outer(np.arange(200), np.arange(200)).astype(np.uint8)
    Pillow.fromarray(grey).save(tmp_path / "a.png")
    images = _read(tmp_path, _options("grey", tile=100, tissue=0.0))
    assert np.array_equal(images[3].pixels, grey[100:, 100:])


def test_what_is_no_slide(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"<html>")
    (tmp_path / "b.tif").write_bytes(b"II*\0" + b"\0" * 100)
    (tmp_path / "labels.csv").write_text("file,label\n")
    (tmp_path / "c.svs").symlink_to("/etc/hostname")
    found = _read(tmp_path, _options())
    assert (found[0].item.path, found[0].reason) == ("a.svs", "not_slide")
    assert {one.item.path: one.reason for one in found}["c.svs"] == "outside_root"
    assert len(found) == 3


def test_damaged_slides_are_named(tmp_path, shared_data, capfd):
    whole = (shared_data / "he_regions" / "CMU-1-Small-Region.svs").read_bytes()
    generator = np.random.default_rng(0)
    for number in range(12):
        content = np.frombuffer(whole, np.uint8).copy()
        if number % 2:
            content = content[: generator.integers(100, len(content))]
        places = generator.integers(0, len(content) if number % 3 else min(len(content), 4000), 200)
        content[places] = generator.integers(0, 256, 200)
        (tmp_path / "Doe.svs").write_bytes(content.tobytes())
        for one in _read(tmp_path, _options()):
            if isinstance(one, Reject):
                assert "Doe" not in one.detail
            else:
                assert one.pixels.shape == (224, 224, 3)
    assert capfd.readouterr().err == ""


def test_tiles_of_the_file_that_would_fill_the_memory(tmp_path):
    _write_tiff(tmp_path / "a.tif", [_picture(256, 256)])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for tag in (322, 323):
            file.pages[0].tags[tag].overwrite(32768, dtype="H")
    (found,) = _read(tmp_path, _options())
    assert (found.reason, found.detail) == ("too_large", "the file's tiles are 32768 rows, 32768 columns")


def test_a_wide_tile_of_a_slide_of_one_level_is_refused(tmp_path):
    _write_tiff(tmp_path / "a.tif", [_picture(300, 300)], mpp=0.05)
    (found,) = _read(tmp_path, _options(tile=4096, mpp=20.0))
    assert found.reason == "too_large"


def test_without_openslide_the_card_is_at_fault(tmp_path, monkeypatch):
    load = builtins.__import__

    def fail(name, *arguments, **keywords):
        if name == "openslide":
            raise ImportError(name)
        return load(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(CardError, match=r"pip install 'medssl\[slides\]'"):
        READER.find(tmp_path)
    with pytest.raises(CardError, match="openslide"):
        READER.read(tmp_path, Item("a.svs"))


# DICOM


def _write_wsi(path: Path, pixels: np.ndarray, frame: int, order: str = "right", positions: bool = False, **elements) -> None:
    """One level, native RGB; frames beyond the border are padded with black. `order`: right or down."""
    height, width = pixels.shape[:2]
    places = [(y, x) for y in range(0, height, frame) for x in range(0, width, frame)]
    if order == "down":
        places.sort(key=lambda place: place[::-1])
    padded = np.zeros((-(-height // frame) * frame, -(-width // frame) * frame, 3), np.uint8)
    padded[:height, :width] = pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"2.25.{abs(hash(path.name))}"
    dataset.Modality, dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.PatientID = "SM", "2.25.7", "2.25.8", "P1"
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = height, width
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = len(places), frame, frame, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if positions:
        dataset.PerFrameFunctionalGroupsSequence = Sequence([_position(x + 1, y + 1) for y, x in places])
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    frames = np.stack([padded[y : y + frame, x : x + frame] for y, x in places])
    dataset.PixelData = frames.tobytes() + b"\0" * (frames.nbytes % 2)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def _position(column: int, row: int) -> Dataset:
    group, plane = Dataset(), Dataset()
    plane.ColumnPositionInTotalImagePixelMatrix, plane.RowPositionInTotalImagePixelMatrix = column, row
    group.PlanePositionSlideSequence = Sequence([plane])
    return group


def _measures(mpp: float) -> Sequence:
    group, measures = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    group.PixelMeasuresSequence = Sequence([measures])
    return Sequence([group])


PICTURE = _picture(330, 460)


@pytest.mark.parametrize(
    ("order", "positions", "elements"),
    [
        ("right", False, {"DimensionOrganizationType": "TILED_FULL"}),
        ("right", True, {"DimensionOrganizationType": "TILED_SPARSE"}),
        ("down", True, {}),
        ("right", False, {}),
        ("down", False, {}),
    ],
)
def test_dicom_frames_are_put_together(tmp_path, order, positions, elements):
    _write_wsi(tmp_path / "a.dcm", PICTURE, 100, order, positions, SharedFunctionalGroupsSequence=_measures(0.5), **elements)
    images = _read(tmp_path, _options(tile=64))
    assert len(images) == 5 * 7
    for image in images:
        x, y, _, _ = image.header.tile
        assert np.array_equal(image.pixels, PICTURE[y : y + 64, x : x + 64])
    header = images[0].header
    assert (header.modality, header.series_uid, header.study_uid, header.patient_id) == ("SM", "a.dcm", "2.25.8", "P1")
    assert header.tile_mpp == pytest.approx(0.5)


def test_dicom_frames_that_are_missing_are_glass(tmp_path):
    _write_wsi(tmp_path / "a.dcm", PICTURE, 100, positions=True)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = groups[:7] + groups[8:]
    dataset.NumberOfFrames -= 1
    data = dataset.PixelData
    dataset.PixelData = data[: 7 * 30000] + data[8 * 30000 :]
    dataset.save_as(tmp_path / "a.dcm")
    found = _read(tmp_path, _options(tile=100, tissue=0.0))
    assert [one.reason for one in found if isinstance(one, Reject)] == ["constant"]
    assert [one.item.start for one in found if isinstance(one, Reject)] == [6]  # row 1, column 2 of 4


def test_dicom_frames_of_unknown_order_without_seams_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    _write_wsi(tmp_path / "a.dcm", noise, 100)
    (found,) = _read(tmp_path, _options(tile=64))
    assert found.reason == "no_position"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, "no_pixels"),
        ({"ImageType": ["DERIVED", "PRIMARY", "OVERVIEW", "NONE"]}, "no_pixels"),
        ({"ImageType": ["DERIVED", "PRIMARY", "THUMBNAIL", "NONE"]}, "no_pixels"),
        ({"TotalPixelMatrixRows": None}, "not_slide"),
        ({"ConcatenationUID": "2.25.1"}, "unsupported_type"),
        ({"NumberOfFrames": 3}, "bad_header"),
        ({"TotalPixelMatrixRows": 5000}, "no_position"),
        ({"TotalPixelMatrixRows": 2**31, "TotalPixelMatrixColumns": 2**31}, "too_large"),
    ],
)
def test_dicom_that_is_refused(tmp_path, elements, reason):
    _write_wsi(tmp_path / "a.dcm", PICTURE, 100, **elements)
    (found,) = _read(tmp_path, _options(tile=64))
    assert found.reason == reason


def test_dicom_levels_are_one_slide(tmp_path):
    half = np.asarray(Pillow.fromarray(PICTURE).resize((230, 165), Pillow.Resampling.BOX))
    _write_wsi(
        tmp_path / "b.dcm", PICTURE, 100, DimensionOrganizationType="TILED_FULL", SharedFunctionalGroupsSequence=_measures(0.5)
    )
    _write_wsi(
        tmp_path / "a.dcm", half, 100, DimensionOrganizationType="TILED_FULL", SharedFunctionalGroupsSequence=_measures(1.0)
    )
    _write_wsi(tmp_path / "c.dcm", half, 100, DimensionOrganizationType="TILED_FULL", SeriesInstanceUID="2.25.9")
    options = _options(tile=64)
    items = READER.find(tmp_path, options=options)
    assert items == [Item("b.dcm", 0, 35, ("b.dcm", "a.dcm")), Item("c.dcm", 0, 6)]
    images = list(READER.read(tmp_path, items[0], (), _options(tile=64, mpp=1.0)))
    assert [image.header.tile[2:] for image in images] == [(row, column) for row in range(2) for column in range(3)]
    assert np.array_equal(images[4].pixels, half[64:128, 64:128])
    assert {image.header.series_uid for image in images} == {"b.dcm"}


def test_frames_are_decoded_once(tmp_path, monkeypatch):
    _write_wsi(tmp_path / "a.dcm", PICTURE, 100, DimensionOrganizationType="TILED_FULL")
    decoded = []
    frame = slide_dicom.DicomFile.frame
    monkeypatch.setattr(slide_dicom.DicomFile, "frame", lambda self, index: decoded.append(index) or frame(self, index))
    slide._opened.cache_clear()
    assert len(_read(tmp_path, _options(tile=32))) == 10 * 14
    assert sorted(decoded) == list(range(20))


# Real slides


def _pairs(images: list[Image]) -> int:
    kept = {image.header.tile[2:] for image in images}
    return sum(((row, column + 1) in kept) + ((row + 1, column) in kept) for row, column in kept)


def test_real_slides(shared_data):
    root = shared_data / "he_regions"
    counts = {}
    for item in READER.find(root, options=_options()):
        images = list(READER.read(root, item, (), _options()))
        assert all(isinstance(image, Image) and image.pixels.shape == (224, 224, 3) for image in images)
        counts[item.path] = (item.stop, len(images), _pairs(images))
    # 51 tissue tiles and 82 pairs are the reference's; the DICOM has pen marks, and its frames run down the columns.
    assert counts["CMU-1-Small-Region.svs"] == (117, 51, 82)
    assert counts["OS-1-detail.ome.tif"] == (16, 16, 24)
    assert counts["small_dicom_wsi.dcm"] == (154, 80, 126)


def test_a_real_slide_tile_by_tile(shared_data):
    root = shared_data / "he_regions"
    with openslide.OpenSlide(root / "CMU-1-Small-Region.svs") as handle:
        whole = np.asarray(handle.read_region((0, 0), 0, handle.dimensions).convert("RGB"))
    for image in READER.read(root, Item("CMU-1-Small-Region.svs", 0, 60), (), _options()):
        x, y, _, _ = image.header.tile
        assert np.array_equal(image.pixels, whole[y : y + 224, x : x + 224])
        assert image.header.tile_mpp == 0.499


def test_an_ome_tiff_of_jpeg_tiles(shared_data, tmp_path):
    """Bio-Formats' tiles are YCbCr under PhotometricInterpretation RGB; libtiff refuses them, taken as RGB they are green."""
    root = shared_data / "he_regions"
    with tifffile.TiffFile(root / "OS-1-detail.ome.tif") as file:
        page = file.pages[0]
        data = (root / "OS-1-detail.ome.tif").read_bytes()
        tile = Pillow.open(io.BytesIO(data[page.dataoffsets[4] : page.dataoffsets[4] + page.databytecounts[4]]))
        expected = np.asarray(tile.convert("RGB"))[: 224 * 3 - 512, : 224 * 3 - 512]
    image = next(READER.read(root, Item("OS-1-detail.ome.tif", 10, 11), (), _options()))
    assert image.header.tile == (448, 448, 2, 2)
    assert np.array_equal(image.pixels[64:, 64:], expected)
    assert image.header.spacing == pytest.approx((0.00022710, 0.00022710), rel=1e-4)
    red, green, blue = image.pixels.reshape(-1, 3).mean(axis=0)
    assert green < min(red, blue)
    (tmp_path / "cut.tif").write_bytes(data[:200000])
    assert [one.reason for one in _read(tmp_path, _options())] == ["truncated"]


def test_tags_of_a_tiff_that_are_empty_or_no_whole_numbers(shared_data, tmp_path):
    whole = (shared_data / "he_regions" / "OS-1-detail.ome.tif").read_bytes()
    directory = int.from_bytes(whole[4:8], "big")
    for entry in range(int.from_bytes(whole[directory : directory + 2], "big")):
        place = directory + 2 + 12 * entry
        for change in (b"\0\4\0\0\0\0", b"\0\5\0\0\0\1", b"\0\2\0\0\0\1", b"\0\14\0\0\0\2"):
            (tmp_path / "a.tif").write_bytes(whole[: place + 2] + change + whole[place + 8 :])
            for one in _read(tmp_path, _options()):
                assert isinstance(one, Image) or one.reason != "unreadable", (entry, change, one)


def test_options_of_a_whole_item_are_its_own(tmp_path):
    """Two cards may look at one folder with different tiles in one process."""
    _write_tiff(tmp_path / "a.tif", [_picture(200, 200)])
    item = Item("a.tif", 0, 4)
    small, large = _options(tile=50), _options(tile=100)
    assert [image.pixels.shape[0] for options in (small, large, small) for image in READER.read(tmp_path, item, (), options)] == [
        50
    ] * 4 + [100] * 4 + [50] * 4
