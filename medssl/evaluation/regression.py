"""The metrics of a predicted number, for thousands of bootstrap replicates at once."""

from __future__ import annotations

import numpy as np


class RegressionScorer:
    """`mae` and `rmse` in the unit of the label; `r2` as scikit-learn's; `pearson`. The last two are unknown where the
    labels (or, for `pearson`, the predictions) do not vary."""

    names: tuple[str, ...] = ("mae", "rmse", "r2", "pearson")

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """`labels` (N,) in the label's unit or NaN (unknown, left out); `scores` (N,) in the same unit, finite."""
        labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        known = ~np.isnan(labels)
        error = np.where(known, scores - labels, 0.0)
        # Sums of squares of centred numbers lose no digits where the mean is large beside the spread.
        y, s = (np.where(known, values - np.mean(values[known]), 0.0) for values in (labels, scores))
        self._smallest = 1e-12 * max(1e-300, float((y**2).sum()))
        self._columns = np.column_stack([known.astype(np.float64), np.abs(error), error**2, y, y**2, s, s**2, y * s])

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """(R, 4), see `scorers.Scorer`."""
        n, absolute, squared, y, yy, s, ss, ys = (weights @ self._columns).T
        with np.errstate(invalid="ignore", divide="ignore"):
            spread_y, spread_s = yy - y**2 / n, ss - s**2 / n
            spread_y = np.where(spread_y > self._smallest, spread_y, np.nan)
            pearson = (ys - y * s / n) / np.sqrt(spread_y * np.where(spread_s > 0, spread_s, np.nan))
            columns = [absolute / n, np.sqrt(squared / n), 1 - squared / spread_y, pearson]
        return np.stack(columns, axis=1)
