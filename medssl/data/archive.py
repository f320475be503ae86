"""An indexed archive, opened: manifest, splits and store together, and the pixels of any of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssl.data.manifest import read_table
from medssl.data.store import Store
from medssl.files import read_json

MANIFEST, REJECTS, SPLITS, SUMMARY = "manifest.parquet", "rejects.parquet", "splits.parquet", "summary.json"


@dataclass
class Archive:
    """All data sets of a study. Positions in the manifest and in the splits table are the same."""

    manifest: pd.DataFrame
    splits: pd.DataFrame
    store: Store
    summary: dict[str, Any]  # counts and digests; see `splits.summarise`

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

    def pixels(self, rows: np.ndarray, window_rule: str):
        """The images of `rows`; see `medssl.data.batches.PixelSource`."""
        from medssl.data.batches import PixelSource

        return PixelSource(self.store, self.manifest, rows, window_rule)


def open_archive(archive: Path, splits: Path) -> Archive:
    """Open what `medssl index` wrote.

    Raises:
        StoreError: a file is missing or damaged.
    """
    return Archive(
        manifest=read_table(archive / MANIFEST),
        splits=read_table(splits / SPLITS),
        store=Store(archive / "store"),
        summary=read_json(archive / SUMMARY) | read_json(splits / SUMMARY),
    )
