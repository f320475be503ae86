"""What a table of predictions must be like. Every error is one line with counts and arm names, and never a key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from medssl.errors import DataError
from medssl.evaluation.columns import label_columns, score_columns, threshold_columns
from medssl.modes import MODES
from medssl.task import Outputs


class HasDraws(Protocol):
    """A mode and a budget with its label draws."""

    mode: str
    budget: str
    seeds: tuple[int, ...]


def check_values(table: pd.DataFrame, outputs: Outputs, fixed: Sequence[str]) -> None:
    """Columns, modes, splits, and what the numbers may be. Raises DataError."""
    scores, thresholds, labels = score_columns(outputs), threshold_columns(outputs), label_columns(outputs)
    missing = [column for column in [*fixed, *labels, *scores, *thresholds] if column not in table.columns]
    if missing:
        raise DataError(f"predictions: no column {', '.join(missing)}; run `medssl evaluate` again")
    if table.empty:
        raise DataError("predictions: no rows; run `medssl evaluate` first")
    unknown = sorted({str(mode) for mode in table["mode"].unique()} - set(MODES))
    if unknown:
        raise DataError(f"predictions: mode {unknown[0]!r} is not one of {', '.join(MODES)}")
    splits = sorted({str(split) for split in table["split"].unique()})
    if len(splits) > 1:
        raise DataError(f"predictions: {len(splits)} splits in one table ({', '.join(splits)}): compare one at a time")
    if table[["row_key", "patient"]].isna().any(axis=None):
        raise DataError("predictions: rows without row_key or patient: every test image belongs to a patient")
    for column in [*scores, *thresholds]:
        numbers = table[column].to_numpy(dtype=np.float64)
        # A target of several may have no operating point: its labels on validation were all of one class.
        allowed = np.isfinite(numbers) | (np.isnan(numbers) & (outputs.kind == "multilabel" and column in thresholds))
        if (bad := int((~allowed).sum())) > 0:
            raise DataError(f"predictions: {bad} rows have a {column} that is not a finite number")
    for column in labels:
        _check_label(table[column], outputs, column)


def _check_label(values: pd.Series, outputs: Outputs, column: str) -> None:
    numbers = values.to_numpy(dtype=np.float64)
    if outputs.kind == "binary":
        bad, allowed = ~np.isin(numbers, (0, 1)), "0 or 1"
    elif outputs.kind == "multilabel":
        bad, allowed = ~(np.isin(numbers, (0, 1)) | np.isnan(numbers)), "0, 1 or unknown"
    elif outputs.kind == "regression":
        bad, allowed = ~np.isfinite(numbers), "a finite number"
    else:
        bad, allowed = ~np.isin(numbers, np.arange(len(outputs.names))), f"0 .. {len(outputs.names) - 1}"
    if bad.any():
        raise DataError(f"predictions: {int(bad.sum())} rows have a {column} other than {allowed}")


def check_labels(labels: np.ndarray, patients: np.ndarray, outputs: Outputs) -> None:
    """Both classes of a binary task, and several patients. `labels` (N, T), `patients` (N,). Raises DataError."""
    if outputs.kind == "binary":
        for label, name in ((1, "positive"), (0, "negative")):
            if not (labels == label).any():
                raise DataError(f"predictions: none of the {len(labels)} test images is {name}: nothing can be compared")
    if patients.max() == 0:
        raise DataError("predictions: all test images are of one patient: an interval needs at least two")


def check_images(cell: str, keys: np.ndarray, n_images: int) -> None:
    """That a cell scores each of the N images once. `keys` are its images, 0 .. N - 1. Raises DataError."""
    distinct = len(np.unique(keys))
    if distinct < len(keys):
        raise DataError(f"predictions: {cell} scores {len(keys) - distinct} test images more than once")
    if distinct < n_images:
        raise DataError(
            f"predictions: {cell} has {distinct} of the {n_images} test images that the cells have together: "
            "all arms must be scored on the same images; run `medssl evaluate` again"
        )


def check_grid(runs: Mapping[str, Sequence[int]], blocks: Sequence[HasDraws], cells: Collection[tuple]) -> None:
    """That every arm has all draws of every block, for each of its pretraining runs. Raises DataError."""
    for block in blocks:
        for arm, own in runs.items():
            for run in own:
                have = sum((arm, block.mode, block.budget, seed, run) in cells for seed in block.seeds)
                if have < len(block.seeds):
                    which = f" in pretraining run {run}" if len(own) > 1 else ""
                    raise DataError(
                        f"predictions: arm '{arm}' has {have} of the {len(block.seeds)} label draws of {block.mode}, "
                        f"budget {block.budget}{which}: a paired comparison needs all; run `medssl evaluate` again"
                    )
