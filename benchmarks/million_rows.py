"""A made-up manifest of very many rows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from medssl.data import manifest as tables


def hex_keys(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """(count,) strings of hexadecimal digits."""
    digits = np.array(list("0123456789abcdef"))
    return rng.choice(digits, (count, length)).view(f"<U{length}").ravel() if count else np.array([])


def manifest(rows: int) -> pd.DataFrame:
    """Four images a patient; one in ten patients is labelled; one image in a thousand is another patient's too."""
    rng = np.random.default_rng(0)
    patients = hex_keys(rng, rows // 4 + 1, 16)[np.arange(rows) // 4]
    hashes = hex_keys(rng, rows, 64)
    twins = rng.choice(rows, rows // 1000, replace=False)
    hashes[twins] = hashes[(twins + 4) % rows]
    values: dict[str, object] = {
        "row_key": hex_keys(rng, rows, 16),
        "source": np.full(rows, "many"),
        "patient": patients,
        "patient_from": np.full(rows, "id"),
        "kind": np.full(rows, "image"),
        "modality": np.full(rows, "CT"),
        "exact_hash": hashes,
        "perceptual_hash": hex_keys(rng, rows, 64),
        "label.finding": np.where(np.arange(rows) // 4 % 10 > 0, None, np.where(np.arange(rows) // 40 % 2, "yes", "no")),
    }
    for column in tables.COLUMNS:
        if column.name not in values:
            values[column.name] = None
    return pd.DataFrame(values)


def opened(frame: pd.DataFrame) -> float:
    """Seconds to read the manifest from its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        tables.write_table(path, frame, tables.schema_of(tables.COLUMNS, ["finding"]))
        begun = time.perf_counter()
        tables.read_table(path)
        return time.perf_counter() - begun
