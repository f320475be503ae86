from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from medssl.data.store import ShardWriter, Store, write_store
from medssl.data.volumes import VolumeSource

SHAPES = [(4, 6, 5), (3, 8, 7)]


@pytest.fixture
def made(tmp_path):
    """Two volumes of different size and depth, the first with a label map, as `index` stores them."""
    rng = np.random.default_rng(0)
    volumes = [rng.integers(0, 200, shape).astype(dtype) for shape, dtype in zip(SHAPES, (np.uint8, np.uint16), strict=True)]
    mask = rng.integers(0, 3, SHAPES[0]).astype(np.uint8)
    writer = ShardWriter(tmp_path, "images")
    places = [writer.append(volume, "volume") for volume in volumes] + [writer.append(mask, "volume")]
    shards = writer.close()
    write_store(tmp_path, tmp_path, 16, shards, {})
    numbers = {file: number for number, file in enumerate(shards)}
    rows = []
    for (depth, height, width), (file, row) in zip(SHAPES, places, strict=False):
        about = {"depth": depth, "rows": height, "columns": width, "store_shard": numbers[file], "store_row": row}
        about |= {"spacing_slice": 3.0, "spacing_row": 1.0, "spacing_column": 0.5, "store_slope": 2.0, "store_intercept": -5.0}
        about |= {"window_center": None, "window_width": None, "window_function": None, "full_low": 0.0, "full_high": 65535.0}
        rows.append(about | {"p00_5": 0.0, "p99_5": 100.0, "inverted": False, "mask_shard": None, "mask_row": None})
    manifest = pd.DataFrame(rows).astype({"window_center": float, "window_width": float})
    manifest.loc[0, ["mask_shard", "mask_row"]] = numbers[places[2][0]], places[2][1]
    return Store(tmp_path), manifest, volumes, mask


def test_volumes_are_padded_to_the_largest_and_boxes_say_where_they_are(made):
    store, manifest, volumes, _ = made
    batch = VolumeSource(store, manifest, np.array([0, 1]), "auto").batch(np.array([1, 0]))
    assert batch.pixels.shape == (2, 1, 4, 8, 7)
    assert batch.box.tolist() == [[0, 0, 0, 3, 8, 7], [0, 0, 0, 4, 6, 5]]
    assert batch.row.tolist() == [1, 0]
    for place, volume in zip((1, 0), volumes, strict=True):
        d, h, w = volume.shape
        np.testing.assert_array_equal(batch.pixels[place, 0, :d, :h, :w].numpy(), volume)
    assert int(batch.pixels[1, 0, :, 6:].to(torch.int64).sum()) == 0, "beyond the smaller volume there is nothing"
    assert batch.spacing.tolist() == [[3.0, 1.0, 0.5]] * 2
    assert (batch.slope.tolist(), batch.intercept.tolist()) == ([2.0, 2.0], [-5.0, -5.0])


def test_label_maps_come_where_every_volume_has_one(made):
    store, manifest, _, mask = made
    assert VolumeSource(store, manifest, np.array([0, 1]), "auto").batch(np.array([0, 1])).masks is None
    found = VolumeSource(store, manifest, np.array([0]), "auto").batch(np.array([0])).masks
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0, 0].numpy(), mask)
