"""The pixel store: what goes in comes out, and a damaged store is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medssl.data.store import Store, StoreWriter, place
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


def test_rows_come_back_from_several_shards(tmp_path):
    writer, rng = StoreWriter(tmp_path, 8, shard_bytes=3 * 8 * 8 * 2), np.random.default_rng(2)
    images = [rng.integers(0, 255, (8, 8)).astype(np.uint8 if k % 3 else np.uint16) for k in range(10)]
    places = [writer.append(image) for image in images]
    writer.close({"resize": "none"})
    shards, rows = np.array([p[0] for p in places]), np.array([p[1] for p in places])
    assert len(set(shards.tolist())) == 4  # 4 deep images and 6 shallow ones, 3 a shard
    order = rng.permutation(10)
    read = Store(tmp_path).read(shards[order], rows[order])
    assert read.dtype == np.float32
    assert all((read[k] == images[order[k]]).all() for k in range(10))


def test_a_damaged_store_is_refused(tmp_path):
    writer = StoreWriter(tmp_path, 8)
    writer.append(np.zeros((8, 8), np.uint8))
    with pytest.raises(StoreError, match=r"no store\.json"):
        Store(tmp_path)
    writer.close({})
    Store(tmp_path)
    shard = tmp_path / "shard-00000-uint8.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match="another length"):
        Store(tmp_path)
    description = json.loads((tmp_path / "store.json").read_text()) | {"version": 9}
    (tmp_path / "store.json").write_text(json.dumps(description))
    with pytest.raises(StoreError, match="is of version 9, this medssl reads version 1"):
        Store(tmp_path)
