"""Batches of whole volumes: they differ in size, so each batch is padded to its largest, and the valid box says where each one is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medssl.data.batches import FUNCTIONS, PixelBatch, choose_windows
from medssl.data.store import Store


class VolumeSource:
    """The volumes of some rows of a manifest, by position, with their label maps where there are any."""

    def __init__(self, store: Store, manifest: pd.DataFrame, rows: np.ndarray, window_rule: str) -> None:
        """`rows`: positions of volumes in the manifest, in the order by which `batch` addresses them."""
        self.store, self.rows, self.channels = store, np.asarray(rows, np.int64), 1
        self._part = manifest.iloc[self.rows]
        self._windows = choose_windows(self._part, window_rule)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: np.ndarray | Tensor) -> PixelBatch:
        """The volumes at `positions`, on the CPU: pixels (N, 1, D, H, W), axes towards head, front and right (RAS), as stored."""
        at = np.asarray(positions)
        part, windows = self._part.iloc[at], self._windows.iloc[at]
        shapes = part[["depth", "rows", "columns"]].to_numpy(np.int64)
        read = [self.store.volume(*place) for place in self._places(part, "store", shapes)]
        spacing = part[["spacing_slice", "spacing_row", "spacing_column"]].to_numpy(np.float32, copy=True)
        number = lambda values: torch.from_numpy(values.to_numpy(np.float32, copy=True))  # noqa: E731
        return PixelBatch(
            pixels=_padded(read, shapes.max(0)),
            slope=number(part["store_slope"]),
            intercept=number(part["store_intercept"]),
            center=number(windows["center"]),
            width=number(windows["width"]),
            function=torch.from_numpy(windows["function"].map(FUNCTIONS).to_numpy(np.int64, copy=True)),
            invert=torch.from_numpy(part["inverted"].to_numpy(bool, copy=True)),
            box=torch.from_numpy(np.concatenate([np.zeros_like(shapes), shapes], axis=1).astype(np.float32)),
            row=torch.from_numpy(self.rows[at]),
            spacing=torch.from_numpy(spacing),
            masks=self._masks(part, shapes),
        )

    def _masks(self, part: pd.DataFrame, shapes: np.ndarray) -> Tensor | None:
        """(N, 1, D, H, W) uint8; None unless every volume has a label map."""
        if "mask_shard" not in part or part["mask_shard"].isna().any():
            return None
        return _padded([self.store.volume(*place) for place in self._places(part, "mask", shapes)], shapes.max(0))

    @staticmethod
    def _places(part: pd.DataFrame, kind: str, shapes: np.ndarray) -> list[tuple[int, int, tuple[int, int, int]]]:
        columns = part[[f"{kind}_shard", f"{kind}_row"]].to_numpy(np.int64)
        return [(int(shard), int(row), tuple(shape)) for (shard, row), shape in zip(columns, shapes.tolist(), strict=True)]


def _padded(volumes: list[np.ndarray], shape: np.ndarray) -> Tensor:
    dtype = np.result_type(*volumes)
    out = np.zeros((len(volumes), 1, *shape), dtype)
    for place, volume in zip(out, volumes, strict=True):
        depth, height, width = volume.shape
        place[0, :depth, :height, :width] = volume
    return torch.from_numpy(out)
