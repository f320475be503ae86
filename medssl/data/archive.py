"""An indexed archive, opened: manifest, splits and store together, and the pixels of any of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssl.data.manifest import read_table
from medssl.data.store import Store
from medssl.errors import DataError
from medssl.files import read_json

MANIFEST, REJECTS, SPLITS, SUMMARY = "manifest.parquet", "rejects.parquet", "splits.parquet", "summary.json"
NEAR = "near.npy"  # (M, 2) int64: pairs of nearly identical images, positions in the manifest


@dataclass
class Archive:
    """All data sets of a study. Positions in the manifest and in the splits table are the same."""

    folder: Path
    splits_folder: Path
    store: Store
    summary: dict[str, Any]  # counts and digests; see `splits.summarise`

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """A row an image; see `medssl.data.manifest.COLUMNS`. Read when it is first asked for."""
        return read_table(self.folder / MANIFEST)

    @cached_property
    def splits(self) -> pd.DataFrame:
        """A row an image; see `medssl.data.manifest.SPLIT_COLUMNS`."""
        return read_table(self.splits_folder / SPLITS)

    @cached_property
    def near(self) -> np.ndarray:
        """(M, 2) int64: pairs of nearly identical images."""
        return np.load(self.folder / NEAR, allow_pickle=False)

    @property
    def data_digest(self) -> str:
        """Hash of all images' content and of how they stand in the store; the same wherever the same files are indexed."""
        return self.summary["data_digest"]

    def rows(self, **where: Any) -> np.ndarray:
        """Positions of the rows whose columns (of the splits table) have the given values; a list means any of them."""
        keep = np.ones(len(self.splits), bool)
        for column, value in where.items():
            keep &= self.splits[column].isin(value if isinstance(value, list) else [value]).to_numpy()
        return np.flatnonzero(keep)

    def require_images(self, rows: np.ndarray) -> np.ndarray:
        """`rows`, where all of them are images.

        Raises:
            DataError: one of them is a volume.
        """
        volumes = (self.manifest["kind"].iloc[rows] == "volume").to_numpy()
        if volumes.any():
            source = self.manifest["source"].iloc[rows[volumes.argmax()]]
            raise DataError(
                f"{source}: is indexed as whole volumes; set `units: slices` under `read` of its card to train on slices"
            )
        return rows

    def pixels(self, rows: np.ndarray, window_rule: str):
        """The images of `rows`; see `medssl.data.batches.PixelSource`."""
        from medssl.data.batches import PixelSource

        return PixelSource(self.store, self.manifest, self.require_images(np.asarray(rows)), window_rule)


def open_archive(archive: Path, splits: Path) -> Archive:
    """Open what `medssl index` wrote.

    Raises:
        StoreError: a file is missing or damaged.
    """
    return Archive(
        folder=archive,
        splits_folder=splits,
        store=Store(archive / "store"),
        summary=read_json(archive / SUMMARY) | read_json(splits / SUMMARY),
    )
