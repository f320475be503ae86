"""The metrics of a classifier of ordered classes (grades), for thousands of bootstrap replicates at once."""

from __future__ import annotations

import numpy as np

from medssl.evaluation.multiclass import macro_auroc, one_against_rest


class OrdinalScorer:
    """All metrics of one classifier of C classes, from least to most; the class called is the one of the highest probability.

    `quadratic_kappa` is Cohen's kappa with squared distances (Cohen 1968), unknown where truth and calls are all one class;
    `mae` the mean distance in classes; `auroc` the mean over the classes of one against the rest.
    """

    names: tuple[str, ...] = ("quadratic_kappa", "mae", "accuracy", "balanced_accuracy", "auroc")

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """`labels` (N,) index of the class or NaN (unknown, left out); `scores` (N, C) probabilities that sum to 1."""
        labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        self._rankings = one_against_rest(labels, scores)
        known, classes = ~np.isnan(labels), np.arange(scores.shape[1])
        # Distances do not change when the classes are counted from their middle, and the sums stay small.
        middle = (len(classes) - 1) / 2
        truth, called = np.where(known, labels, 0.0) - middle, scores.argmax(axis=1) - middle
        off = np.abs(truth - called)
        of_class = (labels[:, None] == classes).astype(np.float64)
        sums = [np.ones(len(labels)), truth, truth**2, called, called**2, off, off**2, off == 0]
        columns = np.column_stack([*sums, of_class, of_class * (off == 0)[:, None]])
        self._columns = np.where(known[:, None], columns, 0.0)

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """(R, 5), see `scorers.Scorer`."""
        sums, c = weights @ self._columns, len(self._rankings)
        n, t, tt, p, pp, off, squared, right = sums[:, :8].T
        of_class, right_of_class = sums[:, 8 : 8 + c], sums[:, 8 + c :]
        with np.errstate(invalid="ignore", divide="ignore"):
            by_chance = tt + pp - 2 * t * p / n  # expected squared distance if truth and call were independent, times n
            present = np.where((of_class > 0).all(axis=1), 1.0, np.nan)
            kappa = 1 - squared / np.where(by_chance > 1e-9, by_chance, np.nan)
            balanced = (right_of_class / of_class).mean(axis=1) * present
            columns = [kappa, off / n, right / n, balanced, macro_auroc(self._rankings, weights)]
        return np.stack(columns, axis=1)
