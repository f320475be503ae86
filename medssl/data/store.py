"""The pixel store: every image once, resized to one square, full dynamic range, in memory-mapped shards; volumes as they are.

`store.json` describes the shards: raw arrays of (rows, size, size) or (rows, size, size, 3), uint8 or uint16, or flat voxels of
volumes one after another. What a stored value means (its linear map to stored units, its window, its valid box) stands in
the manifest, so windowing can happen, and be augmented, on the device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as PillowImage

from medssl.errors import StoreError
from medssl.files import digest_of, read_json, write_json

VERSION = 2
LUTS = "luts.npy"
LUT_LENGTH = 4096

Kind = Literal["grey", "rgb", "volume"]


@dataclass(frozen=True)
class Placed:
    """An image as it stands in the store."""

    pixels: np.ndarray  # (size, size) uint8 | uint16, or (size, size, 3) uint8; zero outside of the box
    slope: float  # stored units = slope * value + intercept
    intercept: float
    box: tuple[int, int, int, int]  # y0, x0, y1, x1 of the valid pixels, half-open
    mask: np.ndarray | None = None  # (size, size) uint8: label values, zero outside of the box


def place(pixels: np.ndarray, slope: float, intercept: float, size: int, mask: np.ndarray | None = None) -> Placed:
    """Fit an image into a `size` x `size` square: aspect kept, longer side resized once with antialiasing, centred.

    Args:
        pixels: (H, W) uint8, int8, uint16, int16, uint32 or int32 stored values, or (H, W, 3) uint8.
        slope, intercept: stored units = slope * pixels + intercept. Resizing commutes with this map, so it is only carried along.
        size: side of the square in pixels.
        mask: (H, W) uint8 label values; the nearest is taken.
    """
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    if pixels.ndim == 3:
        values, dtype = _resized(pixels, shape), np.uint8
    else:
        values, dtype, slope, intercept = _stored(_resized(pixels.astype(np.float32), shape), pixels, slope, intercept)
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    y0, x0 = (size - shape[0]) // 2, (size - shape[1]) // 2
    box = (y0, x0, y0 + shape[0], x0 + shape[1])
    return Placed(
        _framed(values, box, size),
        float(slope),
        float(intercept),
        box,
        None if mask is None else _framed(_resized(mask, shape, PillowImage.Resampling.NEAREST), box, size),
    )


def _stored(resized: np.ndarray, pixels: np.ndarray, slope: float, intercept: float) -> tuple[np.ndarray, type, float, float]:
    """Values to be rounded, their type in the store, and the map from them to units."""
    if pixels.dtype == np.uint8:
        return resized, np.uint8, slope, intercept
    if pixels.dtype in (np.dtype(np.uint16), np.dtype(np.int16), np.dtype(np.int8)):
        offset = 0 if pixels.dtype == np.uint16 else 32768
        return resized + offset, np.uint16, slope, intercept - slope * offset
    low, high = float(pixels.min()), float(pixels.max())  # 32-bit: the image's own range on 16 bits
    step = max(high - low, 1.0) / 65535
    return (resized - low) / step, np.uint16, slope * step, intercept + slope * low


def _resized(
    values: np.ndarray, shape: tuple[int, int], how: PillowImage.Resampling = PillowImage.Resampling.BILINEAR
) -> np.ndarray:
    # Pillow's resize widens the triangle filter by the reduction: antialiased, and it never overshoots the values.
    return np.asarray(PillowImage.fromarray(values).resize((shape[1], shape[0]), how))


def _framed(values: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    square = np.zeros((size, size, *values.shape[2:]), values.dtype)
    square[box[0] : box[2], box[1] : box[3]] = values
    return square


def store_voxels(voxels: np.ndarray, slope: float, intercept: float) -> tuple[np.ndarray, float, float]:
    """A volume's voxels as uint8 or uint16, with the map to units that goes with them; no value changes.

    Args:
        voxels: (D, H, W) uint8, int8, uint16 or int16.
    """
    if voxels.dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return voxels, slope, intercept
    return (voxels.astype(np.int32) + 32768).astype(np.uint16), slope, intercept - slope * 32768


class ShardWriter:
    """Writes the shards of one piece of work into `folder`, a file for each kind and type of pixels."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.bytes = 0
        self._files: dict[str, Any] = {}
        self._used: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, pixels: np.ndarray, kind: Kind) -> tuple[str, int]:
        """Write one array; returns the shard's file name, and the row in it (of a volume: its first voxel)."""
        file = f"{self.name}-{kind}-{pixels.dtype.name}.bin"
        if file not in self._files:
            self._files[file] = (self.folder / file).open("wb")
            self._used[file] = 0
        place, step = self._used[file], pixels.size if kind == "volume" else 1
        self._files[file].write(np.ascontiguousarray(pixels).data)
        self._used[file] += step
        self.bytes += pixels.nbytes
        return file, place

    def close(self) -> dict[str, int]:
        """Flush everything to the disk; the rows (of volumes: voxels) of each file."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._files.clear()
        return dict(self._used)


def write_store(folder: Path, pixels: Path, size: int, shards: dict[str, int], description: dict[str, Any]) -> str:
    """Write store.json into `folder` over shard files that lie in `pixels`; returns the digest of its content.

    Args:
        shards: file name: rows, as `ShardWriter.close` gives them. Numbers of shards in the manifest follow its order.
        description: what else the store should say of itself.
    """
    listed = []
    for file, rows in shards.items():
        kind, dtype = file.removesuffix(".bin").split("-")[-2:]
        listed.append({"file": file, "kind": kind, "dtype": dtype, "rows": rows})
    content = {"version": VERSION, "size": size, "pixels": os.path.relpath(pixels, folder), "shards": listed, **description}
    content["digest"] = digest_of({"version": VERSION, "size": size, **description})
    write_json(folder / "store.json", content)
    return content["digest"]


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
        self.shards: list[dict[str, Any]] = self.description["shards"]
        self._maps = [self._map(shard) for shard in self.shards]
        luts = self.folder / LUTS
        self.luts: np.ndarray = np.load(luts, mmap_mode="r") if luts.exists() else np.zeros((0, LUT_LENGTH), np.uint16)

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / self.description["pixels"] / self.shards[shard]["file"]

    def _map(self, shard: dict[str, Any]) -> np.ndarray:
        path = self.folder / self.description["pixels"] / shard["file"]
        shape: tuple[int, ...] = (shard["rows"],)
        if shard["kind"] != "volume":
            shape += (self.size, self.size) + ((3,) if shard["kind"] == "rgb" else ())
        expected = int(np.prod(shape)) * np.dtype(shard["dtype"]).itemsize
        if not path.exists() or path.stat().st_size < expected:
            raise StoreError(f"store: {shard['file']} is missing or shorter than store.json says; run `medssl index --fresh`")
        # As a plain array: each slice of a memmap is made a memmap again, which costs more than a small copy.
        return np.memmap(path, dtype=shard["dtype"], mode="r", shape=shape).view(np.ndarray)

    def read(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The images at (shard, row): (N, size, size), or (N, size, size, 3) where one of them is in colour.

        uint8 or uint16 as stored; uint16 where both occur. Grey images among coloured ones come with three equal channels.
        """
        kinds = [self.shards[shard] for shard in np.unique(shards)]
        rgb = any(kind["kind"] == "rgb" for kind in kinds)
        deep = any(kind["dtype"] == "uint16" for kind in kinds)
        dtype = np.uint16 if deep else np.uint8
        if len(kinds) == 1:
            return np.take(self._maps[int(shards[0])], rows, axis=0)
        out = np.empty((len(rows), self.size, self.size, *([3] if rgb else [])), dtype)
        for place, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            image = self._maps[shard][row]
            out[place] = image[..., None] if rgb and image.ndim == 2 else image
        return out

    def volume(self, shard: int, offset: int, shape: tuple[int, int, int]) -> np.ndarray:
        """The voxels (D, H, W) of a volume, as a view of the memory map: only what is used is read from the disk."""
        return self._maps[shard][offset : offset + int(np.prod(shape))].reshape(shape)
