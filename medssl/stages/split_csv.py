"""A split table of the user's own: which rows of the archive it puts into train, validation and test."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from medssl.data.manifest import read_table
from medssl.data.private import LOCATE
from medssl.errors import DataError
from medssl.strict import near_miss

WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How a part may be called -> the part."""
NAMED_BY = ("row_key", "patient", "file")


def read_split_csv(table: Path, manifest: pd.DataFrame, private: Path) -> tuple[dict[str, np.ndarray], int]:
    """The positions in the manifest of each part that the table names, and how many of its lines name nothing there.

    A row that the table puts into two parts stands in both.

    Args:
        table: a CSV in UTF-8 with the columns split (train, validation or val, test) and one of row_key, patient (keys of the
            manifest) and file (path below the data set's root).
        manifest: columns row_key and patient.
        private: the folder that knows the files.

    Raises:
        DataError: it cannot be read, has not these columns, names another part, or nothing of the archive.
    """
    lines = _lines(table)
    column = _named_by(table, list(lines[0]) if lines else [])
    named = _positions(column, manifest, private)
    parts: dict[str, list[np.ndarray]] = {}
    missing = 0
    for number, line in enumerate(lines, start=2):
        word = (line["split"] or "").strip().lower()
        if word not in WORDS:
            raise DataError(
                f"{table}: line {number}: split is '{word}'{near_miss(word, list(WORDS))}; allowed: {', '.join(WORDS)}"
            )
        rows = named.get((line[column] or "").strip())
        missing += rows is None
        if rows is not None:
            parts.setdefault(WORDS[word], []).append(rows)
    if not parts:
        raise DataError(f"{table}: none of its {len(lines)} lines names a {column} of the archive")
    return {name: np.unique(np.concatenate(parts[name])) for name in ("train", "validation", "test") if name in parts}, missing


def _lines(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(f"{table}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{table}: is not a CSV in UTF-8 that can be read ({type(problem).__name__})") from problem


def _named_by(table: Path, columns: list[str]) -> str:
    found = [name for name in NAMED_BY if name in columns]
    if "split" not in columns or len(found) != 1:
        raise DataError(
            f"{table}: needs the column split and exactly one of {', '.join(NAMED_BY)}; it has: {', '.join(columns) or 'no lines'}"
        )
    return found[0]


def _positions(column: str, manifest: pd.DataFrame, private: Path) -> dict[str, np.ndarray]:
    """Value of the column -> positions in the manifest."""
    if column == "file":
        places = read_table(private / LOCATE, ["row_key", "path"])
        at = pd.Series(np.arange(len(manifest)), index=manifest["row_key"])
        places = places[places["row_key"].isin(at.index)]
        return {path: at[part].to_numpy() for path, part in places.groupby("path")["row_key"]}
    return dict(manifest.groupby(column).indices)
