"""The reliability table: in each bin of predicted probability, how often it was true."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from medssl.evaluation.calibration_bins import BINS, equal_mass_bins, scaled, scaled_classes
from medssl.evaluation.predictions import Cell, TestSet

COLUMNS = {
    "arm": "the arm",
    "mode": "how it was trained",
    "budget": "label of the budget",
    "target": "the output; of several classes: `called`, the class of the highest probability",
    "scaled": "whether after temperature scaling",
    "bin": "0 .. 14, of about as many images each",
    "n": "images (of all draws and runs together)",
    "mean_score": "mean predicted probability",
    "share": "share of images for which it was true",
    "lower": "lower end of the interval of `share`",
    "upper": "upper end",
}


def reliability(
    outcomes: np.ndarray, scores: np.ndarray, patients: np.ndarray, bins: int = BINS, level: float = 0.95
) -> pd.DataFrame:
    """One row a bin that is not empty: bin, n, mean_score, share, lower, upper.

    Args:
        outcomes: (N,) 0 | 1 | NaN (unknown, left out).
        scores: (N,) probabilities.
        patients: (N,) the patient of each image.

    The interval is Wilson's with the number of images that as many independent ones would be worth, from the variance of the
    share over patients; where all outcomes of a bin are the same, the number of its patients.
    """
    known = ~np.isnan(outcomes)
    outcomes, scores, patients = outcomes[known], scores[known], patients[known]
    of_bin, rows = equal_mass_bins(scores, bins), []
    for index in np.unique(of_bin):
        inside = of_bin == index
        share, (lower, upper) = float(outcomes[inside].mean()), _wilson(outcomes[inside], patients[inside], level)
        rows.append((int(index), int(inside.sum()), float(scores[inside].mean()), share, lower, upper))
    return pd.DataFrame(rows, columns=["bin", "n", "mean_score", "share", "lower", "upper"])


def calibration_table(test: TestSet, level: float = 0.95) -> pd.DataFrame:
    """The reliability of every arm, mode and budget, all draws and runs together; before temperature scaling and, where a
    temperature is known, after. Columns COLUMNS. Regression has none."""
    tables = []
    if test.outputs.kind == "regression":
        return pd.DataFrame(columns=list(COLUMNS))
    for block in test.blocks:
        for arm in test.arms:
            cells = [Cell(arm, block.mode, block.budget, seed, run) for run in test.runs_of(arm) for seed in block.seeds]
            for after in (False, True):
                if after and not np.isfinite([test.temperature_of(cell) for cell in cells]).all():
                    continue
                for target in _targets(test):
                    each = [_column(test, cell, target, after) for cell in cells]
                    outcomes, scores = (np.concatenate(part) for part in zip(*each, strict=True))
                    table = reliability(outcomes, scores, np.tile(test.patients, len(cells)), level=level)
                    named = {"arm": arm, "mode": block.mode, "budget": block.budget, "target": target, "scaled": after}
                    tables.append(table.assign(**named))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def _targets(test: TestSet) -> tuple[str, ...]:
    return test.outputs.names if test.outputs.kind in ("binary", "multilabel") else ("called",)


def _column(test: TestSet, cell: Cell, target: str, after: bool) -> tuple[np.ndarray, np.ndarray]:
    """(N,) outcomes and (N,) probabilities of one output of one cell."""
    scores, temperature = test.scores[cell], test.temperature_of(cell)
    if target == "called":
        scores = scaled_classes(scores, temperature) if after else scores
        truth = test.labels[:, 0]
        right = np.where(np.isnan(truth), np.nan, (scores.argmax(axis=1) == truth).astype(np.float64))
        return right, scores.max(axis=1)
    i = test.outputs.names.index(target)
    return test.labels[:, i], scaled(scores[:, i], temperature) if after else scores[:, i]


def _wilson(outcomes: np.ndarray, patients: np.ndarray, level: float) -> tuple[float, float]:
    n, share = len(outcomes), float(outcomes.mean())
    _, group = np.unique(patients, return_inverse=True)
    count = int(group.max()) + 1
    residuals = np.bincount(group, outcomes - share)
    variance = float((residuals**2).sum()) / n**2 * (count / (count - 1) if count > 1 else np.nan)
    worth = min(n, share * (1 - share) / variance) if variance > 0 else float(count)
    z = norm.ppf((1 + level) / 2)
    centre, half = share + z**2 / (2 * worth), z * np.sqrt(share * (1 - share) / worth + z**2 / (4 * worth**2))
    return max(0.0, float((centre - half) / (1 + z**2 / worth))), min(1.0, float((centre + half) / (1 + z**2 / worth)))
