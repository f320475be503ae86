"""The pixel store: what goes in comes out, and a damaged store is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medssl.data.store import LUT_LENGTH, LUTS, ShardWriter, Store, place, store_voxels, write_store
from medssl.errors import StoreError


def test_aspect_is_kept_and_the_box_is_where_the_pixels_are():
    image = np.full((100, 50), 7, np.uint8)
    placed = place(image, 1.0, 0.0, 40)
    assert placed.box == (0, 10, 40, 30)
    y0, x0, y1, x1 = placed.box
    assert (placed.pixels[y0:y1, x0:x1] == 7).all()
    assert placed.pixels.sum() == 7 * 40 * 20


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
def test_units_survive_the_store(dtype):
    rng = np.random.default_rng(0)
    low, high = (0, 200) if dtype == np.uint8 else (0, 60000) if dtype == np.uint16 else (-3000, 30000)
    image = rng.integers(low, high, (32, 32)).astype(dtype)
    placed = place(image, 2.0, -1024.0, 32)  # no resizing: exact but for rounding
    units = placed.slope * placed.pixels.astype(np.float64) + placed.intercept
    step = 2.0 * (high - low) / 65535 if dtype == np.int32 else 0
    assert np.abs(units - (2.0 * image - 1024.0)).max() <= step


def test_full_range_of_sixteen_bits_is_kept():
    image = np.array([[0, 65535], [1, 65534]], np.uint16).repeat(8, 0).repeat(8, 1)
    assert place(image, 1.0, 0.0, 16).pixels.tolist() == image.tolist()


def test_shrinking_is_antialiased_as_torch_does_it():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 4096, (120, 120)).astype(np.uint16)
    ours = place(image, 1.0, 0.0, 40).pixels.astype(np.float32)
    reference = F.interpolate(
        torch.from_numpy(image.astype(np.float32))[None, None], size=(40, 40), mode="bilinear", antialias=True
    )
    assert np.abs(ours - reference[0, 0].numpy()).max() <= 0.51  # rounding


def test_colour_and_label_maps_are_placed_as_the_image():
    rng = np.random.default_rng(2)
    image, mask = rng.integers(0, 255, (60, 30, 3)).astype(np.uint8), rng.integers(0, 3, (60, 30)).astype(np.uint8) * 100
    placed = place(image, 1.0, 0.0, 20, mask)
    assert placed.pixels.shape == (20, 20, 3)
    assert placed.mask.shape == (20, 20)
    assert set(np.unique(placed.mask)) <= {0, 100, 200}  # labels are never mixed
    for channel in range(3):
        alone = place(np.ascontiguousarray(image[..., channel]), 1.0, 0.0, 20)
        assert alone.box == placed.box
        assert np.abs(alone.pixels.astype(int) - placed.pixels[..., channel]).max() <= 1
    y0, x0, y1, x1 = placed.box
    outside = np.ones((20, 20), bool)
    outside[y0:y1, x0:x1] = False
    assert not placed.mask[outside].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_voxels_keep_their_units(dtype):
    limits = np.iinfo(dtype)
    voxels = np.array([limits.min, 0, 1, limits.max], dtype).reshape(1, 2, 2)
    stored, slope, intercept = store_voxels(voxels, 0.5, -3.0)
    assert stored.dtype in (np.uint8, np.uint16)
    assert np.array_equal(stored * slope + intercept, voxels * 0.5 - 3.0)


def written(folder, parts, size=8, luts=None):
    """A store of `parts`: lists of (array, kind), a shard writer each; returns the places."""
    shards, places = {}, []
    for number, arrays in enumerate(parts):
        writer = ShardWriter(folder / "pixels", str(number))
        places += [writer.append(pixels, kind) for pixels, kind in arrays]
        shards |= writer.close()
    if luts is not None:
        (folder / "store").mkdir()
        np.save(folder / "store" / LUTS, luts)
    write_store(folder / "store", folder / "pixels", size, shards, {"resize": "none"})
    names = list(shards)
    return [(names.index(file), row) for file, row in places]


def test_rows_come_back_from_several_shards(tmp_path):
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 255, (8, 8)).astype(np.uint8 if k % 3 else np.uint16) for k in range(10)]
    places = written(tmp_path, [[(image, "grey") for image in images[:5]], [(image, "grey") for image in images[5:]]])
    shards, rows = np.array([p[0] for p in places]), np.array([p[1] for p in places])
    assert len(set(shards.tolist())) == 4
    order = rng.permutation(10)
    store = Store(tmp_path / "store")
    read = store.read(shards[order], rows[order])
    assert read.dtype == np.uint16
    assert all((read[k] == images[order[k]]).all() for k in range(10))
    shallow = np.array([k for k in range(10) if k % 3])
    assert store.read(shards[shallow], rows[shallow]).dtype == np.uint8


def test_grey_images_among_coloured_ones_have_three_equal_channels(tmp_path):
    grey, colour = np.full((8, 8), 9, np.uint8), np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    places = written(tmp_path, [[(grey, "grey"), (colour, "rgb")]])
    read = Store(tmp_path / "store").read(np.array([p[0] for p in places]), np.array([p[1] for p in places]))
    assert read.shape == (2, 8, 8, 3)
    assert (read[0] == 9).all()
    assert np.array_equal(read[1], colour)


def test_a_volume_is_a_view_of_the_map(tmp_path):
    volumes = [np.arange(24, dtype=np.uint16).reshape(2, 3, 4), np.arange(100, 160, dtype=np.uint16).reshape(3, 4, 5)]
    places = written(tmp_path, [[(volume, "volume") for volume in volumes]])
    store = Store(tmp_path / "store")
    for volume, (shard, offset) in zip(volumes, places, strict=True):
        found = store.volume(shard, offset, volume.shape)
        assert np.array_equal(found, volume)
        assert isinstance(found.base, np.memmap | np.ndarray)
        assert not found.flags.writeable


def test_luts_lie_beside_the_store(tmp_path):
    tables = np.arange(2 * LUT_LENGTH, dtype=np.uint16).reshape(2, -1)
    written(tmp_path, [[(np.zeros((8, 8), np.uint8), "grey")]], luts=tables)
    assert np.array_equal(Store(tmp_path / "store").luts, tables)


def test_a_damaged_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no store\.json"):
        Store(tmp_path / "store")
    written(tmp_path, [[(np.zeros((8, 8), np.uint8), "grey")]])
    Store(tmp_path / "store")
    shard = tmp_path / "pixels" / "0-grey-uint8.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match="is missing or shorter"):
        Store(tmp_path / "store")
    description = json.loads((tmp_path / "store" / "store.json").read_text()) | {"version": 9}
    (tmp_path / "store" / "store.json").write_text(json.dumps(description))
    with pytest.raises(StoreError, match="is of version 9, this medssl reads version 2"):
        Store(tmp_path / "store")
