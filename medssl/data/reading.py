"""From files to rows and store squares, in worker processes. What leaves here still carries identifiers: only `index` sees it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.formats import READERS, Header, Image, Item, ReadOptions, Reject, Volume
from medssl.data.formats.guard import guarded
from medssl.data.formats.slice_headers import SliceHeader, scan
from medssl.data.perceptual import perceptual_hash
from medssl.data.pool import TIME_LIMIT, Answer, Pool, Task
from medssl.data.store import Kind, Placed, place, store_voxels

CHUNK = 8  # items a message: enough to hide the cost of passing it, few enough for an even end
SAMPLED = 2**16
"""Pixels from which the percentiles of larger images are taken."""
PERCENTILES = {"p00_5": 0.5, "p01": 1.0, "p50": 50.0, "p99": 99.0, "p99_5": 99.5}


@dataclass
class ReadImage:
    """One image or volume, read and placed."""

    item: Item
    header: Header
    kind: Kind
    placed: Placed  # of a volume: voxels (D, H, W) in place of the square, and an empty box
    columns: dict[str, Any] = field(default_factory=dict)  # manifest columns that follow from the pixels alone
    voi_lut: np.ndarray | None = None


@dataclass(frozen=True)
class ReadTask:
    """Reading one item: a task for `Pool`."""

    reader: str
    root: Path
    tags: tuple[str, ...]
    options: ReadOptions
    size: int

    def __call__(self, item: Item) -> list[ReadImage | Reject]:
        """What came of the item. Each image is placed before the next is read, so that only squares gather in memory."""
        found = READERS[self.reader].read(self.root, item, self.tags, self.options)
        # Readers guard themselves; what an image of theirs does to the code here costs that item too, and no more.
        return list(
            guarded(item, lambda: (one if isinstance(one, Reject) else read_image(item, one, self.size) for one in found))
        )


@dataclass(frozen=True)
class ScanTask:
    """Reading the headers of the slices in one file: a task for `Pool`."""

    root: Path
    options: ReadOptions

    def __call__(self, item: Item) -> list[SliceHeader | Reject]:
        """The header of each frame, without pixels."""
        return list(scan(self.root, item, self.options))


def read_image(item: Item, found: Image | Volume, size: int) -> ReadImage:
    """An image or volume as it goes into the store, with what the manifest says of it."""
    if isinstance(found, Volume):
        voxels, slope, intercept = store_voxels(found.voxels, found.slope, found.intercept)
        placed = Placed(voxels, slope, intercept, (0, 0, 0, 0), found.mask)
        return ReadImage(item, found.header, "volume", placed, describe_volume(found))
    placed = place(found.pixels, found.slope, found.intercept, size, found.mask)
    kind: Kind = "rgb" if _is_colour(found) else "grey"
    y0, x0, y1, x1 = placed.box
    high_is_dark = found.inverted != (found.slope < 0)
    columns = describe(found) | {"perceptual_hash": perceptual_hash(placed.pixels[y0:y1, x0:x1], -1 if high_is_dark else 1)}
    return ReadImage(item, found.header, kind, placed, columns, found.voi_lut)


def describe(image: Image) -> dict[str, Any]:
    """The manifest's columns that follow from the decoded pixels and how they are to be shown."""
    rows, columns = image.pixels.shape[:2]
    return _shown(image, image.pixels) | {
        "kind": "image",
        "rows": rows,
        "columns": columns,
        "channels": 3 if _is_colour(image) else 1,
        "modality_lut": image.modality_lut,
        "padding": image.padding,
    }


def describe_volume(volume: Volume) -> dict[str, Any]:
    """As `describe`, for a volume."""
    depth, rows, columns = volume.voxels.shape
    return _shown(volume, volume.voxels) | {
        "kind": "volume",
        "depth": depth,
        "rows": rows,
        "columns": columns,
        "channels": 1,
        "modality_lut": False,
        "padding": 0.0,
        "affine": volume.affine[:3].astype(float).ravel().tolist(),
    }


def _shown(image: Image | Volume, pixels: np.ndarray) -> dict[str, Any]:
    # Percentiles of stored values, mapped: a negative slope turns their order around.
    values = percentiles(np.moveaxis(pixels, -1, 0) if _is_colour(image) else pixels) * image.slope + image.intercept
    ends = (float(end) * image.slope + image.intercept for end in (pixels.min(), pixels.max()))
    full = image.full_range or tuple(ends)
    window = image.window or (None, None)
    return {
        "slope": image.slope,
        "intercept": image.intercept,
        "full_low": min(full),
        "full_high": max(full),
        "window_center": window[0],
        "window_width": window[1],
        "window_function": image.window_function if image.window else None,
        "inverted": image.inverted,
        "syntax": image.syntax,
        "decoder": image.decoder,
        "exact_hash": exact_hash(pixels),
        **dict(zip(PERCENTILES, np.sort(values).tolist(), strict=True)),
    }


def _is_colour(image: Image | Volume) -> bool:
    return isinstance(image, Image) and image.pixels.ndim == 3


def percentiles(pixels: np.ndarray) -> np.ndarray:
    """The PERCENTILES of integer pixels of any shape, linearly interpolated as numpy's, float64, by counting.

    Of more than SAMPLED pixels, those of a regular grid along the last two axes.
    """
    step = max(1, int(np.sqrt(pixels.size / SAMPLED)))
    rows, columns = (slice(min(step, length) // 2, None, step) for length in pixels.shape[-2:])
    pixels = pixels[..., rows, columns]
    if pixels.dtype.itemsize > 2:
        return np.percentile(pixels, list(PERCENTILES.values()))
    lowest = np.iinfo(pixels.dtype).min
    unsigned = np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}")
    if lowest:  # two's complement in the order of values
        unsigned = unsigned ^ unsigned.dtype.type(-lowest)
    above = np.cumsum(np.bincount(unsigned.reshape(-1)))
    rank = np.array(list(PERCENTILES.values())) / 100 * (pixels.size - 1)
    below = np.floor(rank)
    low, high = (np.searchsorted(above, at, side="right") for at in (below, np.ceil(rank)))
    return low + (high - low) * (rank - below) + lowest


def exact_hash(pixels: np.ndarray) -> str:
    """SHA-256 of the shape and values of decoded pixels: the same for the same image in another container or integer type."""
    low, high = int(pixels.min()), int(pixels.max())
    # The smallest of four types that holds the values: a function of them alone.
    kind = (
        "u1"
        if low >= 0 and high < 2**8
        else "<u2"
        if low >= 0 and high < 2**16
        else "<i2"
        if high < 2**15 and low >= -(2**15)
        else "<i4"
    )
    digest = hashlib.sha256(f"{pixels.shape}{kind}".encode())
    digest.update(np.ascontiguousarray(pixels, dtype=kind).data)
    return digest.hexdigest()


def usable_cores() -> int:
    """CPU cores that this process may use: fewer than the machine has under a SLURM allocation or a container's limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_archive(
    task: Task, items: list[Item], workers: int | None, *, chunk: int = CHUNK, time_limit: float = TIME_LIMIT
) -> Iterator[list[Answer]]:
    """What `task` makes of every item, in order, a chunk at a time, by `workers` processes (None: one a core); memory stays flat.

    Args:
        chunk: items that are handed to a process at a time; 1 where an item is large.

    Yields:
        Up to `chunk` items, each with what came of it.
    """
    workers = min(workers or usable_cores(), -(-len(items) // chunk))
    if not items:
        return
    with Pool(task, workers, time_limit=time_limit) as pool:
        chunks = (items[start : start + chunk] for start in range(0, len(items), chunk))
        yield from pool.map(chunks, ahead=2 * workers if chunk == 1 else None)
