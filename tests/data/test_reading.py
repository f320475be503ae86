"""From files to rows: order kept, content hashed, what is said of an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from medssl.data.formats import Image, Item, ReadOptions, Volume
from medssl.data.reading import CHUNK, PERCENTILES, ReadTask, describe, exact_hash, percentiles, read_archive, read_image


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        PillowImage.fromarray(np.random.default_rng(number).integers(0, 255, (9, 7)).astype(np.uint8)).save(
            tmp_path / f"{number:02}.png"
        )
    return tmp_path


def items():
    return [Item(f"{number:02}.png") for number in range(40)]


@pytest.mark.parametrize("workers", [1, 2])
def test_everything_is_read_in_order(folder, workers):
    parts = list(read_archive(ReadTask("raster", folder, (), ReadOptions(), 16), items(), workers))
    assert [len(part) for part in parts] == [CHUNK] * (40 // CHUNK)
    assert [item.path for part in parts for item, _ in part] == [item.path for item in items()]
    assert all(found[0].placed.pixels.shape == (16, 16) for part in parts for _, found in part)


def test_nothing_to_read_is_nothing(folder):
    assert list(read_archive(ReadTask("raster", folder, (), ReadOptions(), 16), [], 2)) == []


def test_identical_values_have_one_hash_whatever_their_type():
    image = np.arange(12).reshape(3, 4)
    assert len({exact_hash(image.astype(kind)) for kind in (np.uint8, np.int16, np.uint16, np.int32)}) == 1
    assert exact_hash(image.astype(np.uint8)) != exact_hash(image.reshape(4, 3).astype(np.uint8))
    for low in (-5, 300, 40000, 70000):
        assert exact_hash(image + low) == exact_hash((image + low).astype(np.int32))
        assert exact_hash(image + low) != exact_hash(image)
    # Bytes that agree under two readings of them are not the same values.
    assert exact_hash(np.array([[-1]], np.int16)) != exact_hash(np.array([[65535]], np.uint16))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32])
@pytest.mark.parametrize("shape", [(1, 2), (3, 5), (64, 65), (4, 5, 6)])
def test_percentiles_are_numpys(dtype, shape):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    for low, high in ((limits.min, limits.max), (0, 3)):
        pixels = rng.integers(low, high, shape, endpoint=True).astype(dtype)
        expected = np.percentile(pixels.astype(np.float64), list(PERCENTILES.values()))
        assert np.allclose(percentiles(pixels), expected, rtol=1e-12, atol=1e-9)


def test_percentiles_are_in_units_and_in_order_under_a_negative_slope():
    image = Image(np.arange(1000, dtype=np.uint16).reshape(10, 100), slope=-2.0, intercept=100.0)
    columns = describe(image)
    values = [columns[name] for name in ("p00_5", "p01", "p50", "p99", "p99_5")]
    assert values == sorted(values)
    assert columns["p50"] == 100 - 2 * 499.5
    assert (columns["full_low"], columns["full_high"]) == (100 - 2 * 999, 100)


def test_a_volume_goes_into_the_store_as_it_is():
    voxels = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    read = read_image(Item("a"), Volume(voxels, affine, slope=2.0, mask=(voxels > 0).astype(np.uint8)), 16)
    assert read.kind == "volume"
    assert np.array_equal(read.placed.pixels * read.placed.slope + read.placed.intercept, voxels * 2.0)
    assert (read.columns["depth"], read.columns["rows"], read.columns["columns"]) == (2, 3, 4)
    assert read.columns["affine"] == [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0]
    assert "perceptual_hash" not in read.columns


def test_an_inverted_image_and_its_negative_have_one_perceptual_hash():
    image = np.add.outer(np.arange(90) ** 1.5, 30 * np.sin(np.arange(70) / 5)).astype(np.uint16)
    negative = (image.max() - image).astype(np.uint16)
    hashes = {
        read_image(Item("a"), found, 64).columns["perceptual_hash"]
        for found in (Image(image), Image(negative, inverted=True), Image(negative, slope=-1.0))
    }
    assert len(hashes) == 1
    assert read_image(Item("a"), Image(negative), 64).columns["perceptual_hash"] not in hashes
