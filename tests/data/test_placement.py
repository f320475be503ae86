"""Where training reads its pixels from."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from medssl.data import placement
from medssl.data.batches import PixelSource
from medssl.data.placement import place
from medssl.data.store import ShardWriter, Store, write_store
from medssl.data.store import place as framed
from medssl.errors import StudyError

CPU = torch.device("cpu")
COLUMNS = ["store_shard", "store_row", "store_slope", "store_intercept", "box_y0", "box_x0", "box_y1", "box_x1", "inverted"]
COLUMNS += ["window_center", "window_width", "window_function", "full_low", "full_high", "p00_5", "p99_5"]


def source_of(folder, kinds: str) -> PixelSource:
    """Images 16 px: g grey 8 bits, d grey 16 bits, c colour."""
    writer, rows, rng, files = ShardWriter(folder, "images"), [], np.random.default_rng(0), {}
    for kind in kinds:
        shape = (16, 12, 3) if kind == "c" else (16, 12)
        pixels = rng.integers(0, 60000 if kind == "d" else 255, shape).astype(np.uint16 if kind == "d" else np.uint8)
        image = framed(pixels, 1.0, 0.0, 16)
        file, row = writer.append(image.pixels, "rgb" if kind == "c" else "grey")
        shard = files.setdefault(file, len(files))
        rows.append((shard, row, 1.0, 0.0, *image.box, False, None, None, None, 0.0, 255.0, 0.0, 255.0))
    write_store(folder, folder, 16, writer.close(), {})
    return PixelSource(Store(folder), pd.DataFrame(rows, columns=COLUMNS), np.arange(len(rows)), "auto")


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("kinds", ["ggggg", "ddd", "gdgd", "ccc", "gcgcg"])
def test_pixels_that_are_held_are_those_of_the_store(tmp_path, kinds, device):
    source = source_of(tmp_path, kinds)
    positions = torch.tensor([2, 0, 1, 2])
    everything = torch.arange(len(source))
    read, whole = source.batch(positions).pixels, source.batch(everything).pixels
    source.hold(torch.device(device))
    assert torch.equal(source.batch(everything).pixels.cpu(), whole)
    held = source.batch(positions).pixels.cpu()
    assert torch.equal(held.to(torch.int32), read.to(torch.int32))
    assert held.shape == read.shape


def test_how_many_bytes_all_pixels_take(tmp_path):
    assert source_of(tmp_path / "a", "ggg").pixel_bytes == 3 * 256
    assert source_of(tmp_path / "b", "gd").pixel_bytes == 2 * 256 * 2
    assert source_of(tmp_path / "c", "cg").pixel_bytes == 2 * 256 * 3


def test_auto_takes_memory_where_all_fits_and_says_why(tmp_path):
    said = place(source_of(tmp_path, "ggg"), CPU, "auto")
    assert said.startswith("the store (0.1 MB) is read into memory: it takes less than 50% of the ")


def test_auto_takes_the_disk_where_memory_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(placement.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert place(source_of(tmp_path, "ggg"), CPU, "auto").endswith(
        "is read from the disk as it is needed: memory has 0.1 MB free"
    )


def test_what_the_study_says_is_done(tmp_path):
    source = source_of(tmp_path, "ggg")
    assert "from the disk as it is needed: as store.placement says" in place(source, CPU, "disk")
    assert "is read into memory: as store.placement says" in place(source, CPU, "ram")
    for thread in threading.enumerate():
        if thread.name == "medssl-warm":
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_a_gpu_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(
        StudyError, match=r"store\.placement: is gpu, and the study runs on the CPU; allowed here: auto, ram, disk"
    ):
        place(source_of(tmp_path, "g"), CPU, "gpu")
