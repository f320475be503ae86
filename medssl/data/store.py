"""The pixel store: every image once, resized to one square, full dynamic range, in memory-mapped shards.

`store.json` describes shards of raw (rows, size, size) arrays, uint8 or uint16. What a stored value means (its linear map
to stored units, its window, its valid box) stands in the manifest, so windowing can happen, and be augmented, on the device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from medssl.errors import StoreError
from medssl.files import digest_of, read_json, write_json

VERSION = 1
SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Placed:
    """An image as it stands in the store."""

    pixels: np.ndarray  # (size, size) uint8 | uint16, zero outside of the box
    slope: float  # stored units = slope * value + intercept
    intercept: float
    box: tuple[int, int, int, int]  # y0, x0, y1, x1 of the valid pixels, half-open


def place(pixels: np.ndarray, slope: float, intercept: float, size: int) -> Placed:
    """Fit an image into a `size` x `size` square: aspect kept, longer side resized once with antialiasing, centred.

    Args:
        pixels: (H, W) uint8, int8, uint16, int16, uint32 or int32 stored values.
        slope, intercept: stored units = slope * pixels + intercept. Resizing commutes with this map, so it is only carried along.
        size: side of the square in pixels.
    """
    height, width = pixels.shape
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    # Pillow's resize widens the triangle filter by the reduction: antialiased, and it never overshoots the values.
    resized = np.asarray(
        PillowImage.fromarray(pixels.astype(np.float32)).resize((new_width, new_height), PillowImage.Resampling.BILINEAR)
    )
    if pixels.dtype == np.uint8:
        values, dtype = resized, np.uint8
    elif pixels.dtype in (np.dtype(np.uint16), np.dtype(np.int16), np.dtype(np.int8)):
        offset = 0 if pixels.dtype == np.uint16 else 32768
        values, dtype, intercept = resized + offset, np.uint16, intercept - slope * offset
    else:  # 32-bit: the image's own range on 16 bits
        low, high = float(pixels.min()), float(pixels.max())
        step = max(high - low, 1.0) / 65535
        values, dtype, slope, intercept = (resized - low) / step, np.uint16, slope * step, intercept + slope * low
    y0, x0 = (size - new_height) // 2, (size - new_width) // 2
    square = np.zeros((size, size), dtype)
    limits = np.iinfo(dtype)
    square[y0 : y0 + new_height, x0 : x0 + new_width] = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return Placed(square, float(slope), float(intercept), (y0, x0, y0 + new_height, x0 + new_width))


class StoreWriter:
    """Appends images to shards below `folder`; `close` writes store.json, without which a folder is no store."""

    def __init__(self, folder: Path, size: int, *, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.size = folder, size
        self._limit = max(1, shard_bytes // (size * size * 2))
        self._shards: list[dict[str, Any]] = []
        self._open: dict[str, tuple[int, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, square: np.ndarray) -> tuple[int, int]:
        """Write one (size, size) array; returns (shard, row)."""
        kind = square.dtype.name
        if kind not in self._open or self._shards[self._open[kind][0]]["rows"] >= self._limit:
            self._start_shard(kind)
        shard, file = self._open[kind]
        file.write(np.ascontiguousarray(square).tobytes())
        self._shards[shard]["rows"] += 1
        return shard, self._shards[shard]["rows"] - 1

    def close(self, description: dict[str, Any]) -> str:
        """Flush everything to the disk and write store.json with `description`; returns the digest of its content."""
        for _, file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._open.clear()
        content = {"version": VERSION, "size": self.size, "shards": self._shards, **description}
        content["digest"] = digest_of(content)
        write_json(self.folder / "store.json", content)
        return content["digest"]

    def _start_shard(self, kind: str) -> None:
        if kind in self._open:
            self._open[kind][1].close()
        name = f"shard-{len(self._shards):05d}-{kind}.bin"
        self._open[kind] = (len(self._shards), (self.folder / name).open("wb"))
        self._shards.append({"file": name, "dtype": kind, "rows": 0})


class Store:
    """Reads a store; one memory map a shard, shared by all processes that open it."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`.

        Raises:
            StoreError: it is missing, of another version, or a shard is shorter than store.json says.
        """
        self.folder = Path(folder)
        if not (self.folder / "store.json").exists():
            raise StoreError("store: there is no store.json in the work folder; run `medssl index` again")
        self.description = read_json(self.folder / "store.json")
        if self.description.get("version") != VERSION:
            raise StoreError(
                f"store: is of version {self.description.get('version')}, this medssl reads version {VERSION}; run `medssl index --fresh`"
            )
        self.size: int = self.description["size"]
        self._maps = [self._map(shard) for shard in self.description["shards"]]

    def _map(self, shard: dict[str, Any]) -> np.ndarray:
        path, shape = self.folder / shard["file"], (shard["rows"], self.size, self.size)
        expected = int(np.prod(shape)) * np.dtype(shard["dtype"]).itemsize
        if not path.exists() or path.stat().st_size != expected:
            raise StoreError(
                f"store: {shard['file']} is missing or has another length than store.json says; run `medssl index --fresh`"
            )
        return np.memmap(path, dtype=shard["dtype"], mode="r", shape=shape)

    def read(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The images at (shard, row): (N, size, size) float32 of stored values.

        float32 holds every uint16 exactly, and torch has no arithmetic for uint16.
        """
        out = np.empty((len(rows), self.size, self.size), np.float32)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            out[here] = self._maps[shard][rows[here]]
        return out
