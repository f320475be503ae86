from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssl.data.batches import PixelSource
from medssl.data.store import ShardWriter, Store, place, write_store


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> tuple[Store, pd.DataFrame]:
    """The store and the manifest of 22 grey images of noise, 16 px."""
    folder, rng = tmp_path_factory.mktemp("store"), np.random.default_rng(0)
    writer, rows = ShardWriter(folder, "images"), []
    for _ in range(22):
        image = place(rng.integers(0, 255, (20, 16)).astype(np.uint8), 1.0, 0.0, 16)
        _, row = writer.append(image.pixels, "grey")
        rows.append((0, row, 1.0, 0.0, *image.box, False, None, None, None, 0.0, 255.0, 0.0, 255.0))
    write_store(folder, folder, 16, writer.close(), {})
    columns = ["store_shard", "store_row", "store_slope", "store_intercept", "box_y0", "box_x0", "box_y1", "box_x1", "inverted"]
    columns += ["window_center", "window_width", "window_function", "full_low", "full_high", "p00_5", "p99_5"]
    return Store(folder), pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="session")
def source(images) -> PixelSource:
    """All 22 of them."""
    return PixelSource(*images, np.arange(22), "auto")
