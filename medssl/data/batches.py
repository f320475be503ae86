"""Batches of stored images with how to show them; the order of samples is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medssl.data.store import Store
from medssl.seeds import torch_generator

FUNCTIONS = {"linear": 0, "linear_exact": 1, "sigmoid": 2, "lut": 3}
# Centre and width in HU, as radiology's textbooks and viewers preset them (Hofer, CT Teaching Manual; Radiopaedia, "Windowing (CT)").
CT_WINDOWS = {"lung": (-600.0, 1500.0), "soft_tissue": (40.0, 400.0), "bone": (400.0, 1800.0), "brain": (40.0, 80.0)}


@dataclass
class PixelBatch:
    """N images or volumes as they stand in the store, with the window that the encoder's input rule chose for each."""

    pixels: Tensor  # (N, C, H, W) or (N, C, D, H, W) uint8, uint16 or float32: stored values, C = 1 (grey) or 3 (RGB)
    slope: Tensor  # (N,) float32: stored units = slope * pixels + intercept
    intercept: Tensor  # (N,) float32
    center: Tensor  # (N,) float32, stored units
    width: Tensor  # (N,) float32, stored units
    function: Tensor  # (N,) int64, see FUNCTIONS
    invert: Tensor  # (N,) bool: high units are dark
    box: Tensor  # (N, 4) float32: y0, x0, y1, x1 of the valid pixels, half-open; of volumes (N, 6): z0, y0, x0, z1, y1, x1
    row: Tensor  # (N,) int64, position in the manifest
    spacing: Tensor  # (N, 2) float32: mm between rows, between columns of the store; of volumes (N, 3), slices first; NaN unknown
    luts: Tensor | None = None  # (N, L) float32 in [0, 1]: VOI LUTs over the window's range, where any function is "lut"
    masks: Tensor | None = None  # (N, 1, H, W) or (N, 1, D, H, W) uint8: label values
    host: tuple[Tensor, Tensor] | None = field(default=None, repr=False)  # box and spacing on the CPU, see `placed`

    def __len__(self) -> int:
        return len(self.row)

    def to(self, device: torch.device | str) -> PixelBatch:
        """The batch on another device."""
        moved = self._each(lambda value: value.to(device, non_blocking=True))
        moved.host = self.placed()
        return moved

    def pinned(self) -> PixelBatch:
        """The batch in memory from which a GPU fetches without the CPU."""
        pinned = self._each(lambda value: value if value.is_cuda else value.pin_memory())
        pinned.host = self.placed()
        return pinned

    def part(self, samples: slice | Tensor) -> PixelBatch:
        """Some samples: of a slice nothing is copied, of positions (int64) everything."""
        part = self._each(lambda value: take(value, samples))
        part.host = None if self.host is None else tuple(value[samples] for value in self.host)
        return part

    def placed(self) -> tuple[Tensor, Tensor]:
        """Box and spacing on the CPU; a batch that came from there has kept them, so that nothing waits for a GPU."""
        return self.host or (self.box.cpu(), self.spacing.cpu())

    def _each(self, change: Callable[[Tensor], Tensor]) -> PixelBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "host"}
        return PixelBatch(**{name: None if value is None else change(value) for name, value in values.items()})


def take(values: Tensor, samples: slice | Tensor) -> Tensor:
    """Some rows; positions (int64, on the CPU) go to where the values are, without waiting for a GPU."""
    if isinstance(samples, slice):
        return values[samples]
    samples = samples.to(values.device, non_blocking=True)
    # torch has no kernel that gathers uint16 on a GPU; the bits are the same.
    return values.view(torch.int16)[samples].view(torch.uint16) if values.dtype == torch.uint16 else values[samples]


def choose_windows(manifest: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The window of each row: columns center, width (stored units), function, source, lut.

    Args:
        manifest: rows of a manifest.
        rule: `auto`: the window (or VOI LUT) that the card chose of the file's; without one the full range of 8-bit
            images, and percentiles 0.5 to 99.5 of deeper ones. `percentile`: percentiles for every image. `full`: the range
            that the bit depth can hold. A name of CT_WINDOWS: that window for CT images, `auto` for all others.
    """
    if rule in CT_WINDOWS:
        return _by_name(choose_windows(manifest, "auto"), (manifest["modality"] == "CT").to_numpy(), rule)
    own = manifest["window_center"].notna() & (rule == "auto")
    full_width = manifest["full_high"] - manifest["full_low"]
    full = (rule == "full") | ((rule == "auto") & ~own & (full_width <= 255))
    low = manifest["full_low"].where(full, manifest["p00_5"])
    high = manifest["full_high"].where(full, manifest["p99_5"])
    # A window of no width would divide by zero; one unit is the least that stored values can differ by.
    width = (high - low).clip(lower=1e-6)
    return pd.DataFrame(
        {
            "center": manifest["window_center"].where(own, (low + high) / 2),
            "width": manifest["window_width"].where(own, width),
            "function": manifest["window_function"].where(own, "linear_exact"),
            "source": np.where(own, "file", np.where(full, "full", "percentile")),
            "lut": manifest["lut"].where(own) if "lut" in manifest else pd.Series(np.nan, index=manifest.index),
        },
        index=manifest.index,
    )


def _by_name(windows: pd.DataFrame, is_ct: np.ndarray, name: str) -> pd.DataFrame:
    center, width = CT_WINDOWS[name]
    columns = {"center": center, "width": width, "function": "linear_exact", "source": name, "lut": np.nan}
    return windows.assign(**{column: windows[column].mask(is_ct, value) for column, value in columns.items()})


SHOWING = (
    "modality", "rows", "columns", "channels", "spacing_row", "spacing_column", "full_low", "full_high", "window_center",
    "window_width", "window_function", "lut", "inverted", "p00_5", "p99_5", "store_shard", "store_row", "store_slope",
    "store_intercept", "box_y0", "box_x0", "box_y1", "box_x1",
)  # fmt: skip
"""Columns of the manifest that say how pixels are shown; the others, at a million rows, cost seconds to gather."""


class PixelSource:
    """The images of some rows of a manifest, by position."""

    def __init__(self, store: Store, manifest: pd.DataFrame, rows: np.ndarray, window_rule: str) -> None:
        """`rows`: positions of images in the manifest, in the order by which `batch` addresses them."""
        self.store, self.rows = store, np.array(rows, np.int64)  # a copy: torch wants to be able to write
        part = manifest[[name for name in SHOWING if name in manifest]].iloc[self.rows]
        self.channels = int(part["channels"].max()) if "channels" in part and len(part) else 1
        windows = choose_windows(part, window_rule)
        lut = pd.to_numeric(windows["lut"]).fillna(-1).to_numpy(np.int64)
        self._lut = lut if (lut >= 0).any() else None
        self._resident: Tensor | None = None
        self._shard = part["store_shard"].to_numpy(np.int64)
        self._row = part["store_row"].to_numpy(np.int64)
        self._columns = {
            "slope": _tensor(part["store_slope"]),
            "intercept": _tensor(part["store_intercept"]),
            "center": _tensor(windows["center"]),
            "width": _tensor(windows["width"]),
            "function": torch.from_numpy(windows["function"].map(FUNCTIONS).to_numpy(np.int64, copy=True)),
            "invert": torch.from_numpy(part["inverted"].to_numpy(bool, copy=True)),
            "box": _tensor(part[["box_y0", "box_x0", "box_y1", "box_x1"]]),
            "row": torch.from_numpy(self.rows),
            "spacing": _store_spacing(part),
        }

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: np.ndarray | Tensor) -> PixelBatch:
        """The images at `positions` (int64, N), on the CPU."""
        positions = torch.as_tensor(positions)
        at = positions.numpy()
        held = self._resident
        read = torch.from_numpy(self.store.read(self._shard[at], self._row[at])) if held is None else take(held, positions)
        pixels = read.permute(0, 3, 1, 2) if read.ndim == 4 else read.unsqueeze(1).expand(-1, self.channels, -1, -1)
        columns = {name: column[positions] for name, column in self._columns.items()}
        return PixelBatch(pixels=pixels, luts=self._luts(at), **columns)

    @property
    def pixel_bytes(self) -> int:
        """How much memory the pixels of all images take, as `batch` gives them."""
        kinds = [self.store.shards[shard] for shard in np.unique(self._shard)]
        channels = 3 if any(kind["kind"] == "rgb" for kind in kinds) else 1
        return len(self) * self.store.size**2 * channels * (2 if any(kind["dtype"] == "uint16" for kind in kinds) else 1)

    @property
    def files(self) -> list[Path]:
        """The shards that hold the images."""
        return [self.store.path(shard) for shard in np.unique(self._shard).tolist()]

    def hold(self, device: torch.device) -> None:
        """Keep the pixels of all images on `device` from now on; `batch` gives them there."""
        held: Tensor | None = None
        deep = any(self.store.shards[shard]["dtype"] == "uint16" for shard in np.unique(self._shard))
        for start in range(0, len(self), 1024):
            shards, rows = self._shard[start : start + 1024], self._row[start : start + 1024]
            part = self.store.read(shards, rows)
            if held is None:
                rgb = any(self.store.shards[shard]["kind"] == "rgb" for shard in np.unique(self._shard))
                shape = (len(self), self.store.size, self.store.size, *([3] if rgb else []))
                held = torch.empty(shape, dtype=torch.uint16 if deep else torch.uint8, device=device)
            if held.ndim == 4 and part.ndim == 3:
                part = np.repeat(part[..., None], 3, axis=3)
            held[start : start + len(part)] = torch.from_numpy(part.astype(np.uint16 if deep else np.uint8)).to(device)
        self._resident = held

    def _luts(self, at: np.ndarray) -> Tensor | None:
        if self._lut is None:
            return None
        tables = self.store.luts[np.maximum(self._lut[at], 0)]
        return torch.from_numpy(tables.astype(np.float32) / 65535)

    def batches(self, size: int) -> Iterator[PixelBatch]:
        """All images in order, the last batch as small as it comes: nothing is dropped."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))


def _store_spacing(part: pd.DataFrame) -> Tensor:
    """(N, 2) mm between the store's rows and columns: the store keeps an image's aspect in pixels and changes their size."""
    sides = {"row": ("rows", "box_y0", "box_y1"), "column": ("columns", "box_x0", "box_x1")}
    found = []
    for axis, (count, first, last) in sides.items():
        if f"spacing_{axis}" not in part:
            return torch.full((len(part), 2), float("nan"))
        found.append(part[f"spacing_{axis}"].astype(float) * part[count] / (part[last] - part[first]))
    return _tensor(pd.concat(found, axis=1))


def _tensor(values: pd.Series | pd.DataFrame) -> Tensor:
    return torch.from_numpy(values.to_numpy(np.float32, copy=True))


def epoch_order(samples: int, seed: int, epoch: int) -> Tensor:
    """(samples,) int64: the order of an epoch, f(seed, epoch) and nothing else, so that a resumed run needs no sampler state."""
    return torch.randperm(samples, generator=torch_generator(seed, "order", epoch))
