"""The metrics of a binary classifier, for one test set or for thousands of bootstrap replicates of it at once.

AUROC and average precision are sums over the sorted scores (`ranking`). Everything else is a function of sums over
images, so all replicates of all of them are one product of two matrices.
"""

from __future__ import annotations

import numpy as np

from medssl.evaluation.calibration_bins import equal_mass_bins, gaps, scaled
from medssl.evaluation.ranking import checked, rank

METRICS = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity")
"""What stands in every short table of a binary task."""


class BinaryScorer:
    """All metrics of one binary classifier.

    sensitivity .. accuracy call an image positive at score >= the operating point; `accuracy_at_half` at score > 0.5,
    as MedMNIST's Evaluator does. F1 is that of the positive class. Matthews' correlation is 0 where all images are
    called the same (Chicco & Jurman 2020). The positive predictive value is unknown where nothing is called positive.
    Without an operating point (NaN) nothing is called, and all that needs it is unknown.

    The calibration error has 15 bins of about as many images each, fixed on the whole test set, so that a replicate
    changes what is in a bin and not its bounds. Temperature scaling keeps the order of the scores and so the bins.
    """

    names: tuple[str, ...] = (
        *METRICS,
        *("ppv", "npv", "f1", "mcc", "accuracy", "accuracy_at_half", "brier", "brier_scaled", "ece", "ece_scaled"),
    )

    def __init__(self, labels: np.ndarray, scores: np.ndarray, threshold: float, temperature: float = np.nan) -> None:
        """`labels` (N,) 0 | 1 | NaN (unknown, left out); `scores` (N,) probabilities; N >= 1."""
        labels, scores = checked(labels, scores)
        self._ranking = rank(labels, scores)
        known = ~np.isnan(labels)
        positive, negative = (labels == 1).astype(np.float64), (labels == 0).astype(np.float64)
        called = np.where(np.isnan(threshold), np.nan, scores >= threshold)
        bins = equal_mass_bins(np.where(known, scores, np.nan))
        after = scaled(scores, temperature) if np.isfinite(temperature) else np.full(len(scores), np.nan)
        error, error_after = (np.where(known, values - positive, 0.0) for values in (scores, after))
        self._columns = np.column_stack(
            [
                *(positive, negative, positive * called, negative * called),
                np.where(known, (scores > 0.5) == (labels == 1), False),
                *(error**2, error_after**2),
                *(gaps(scores, labels, bins), gaps(after, labels, bins)),
            ]
        ).astype(np.float64)

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """(R, 15), see `scorers.Scorer`."""
        sums = weights @ self._columns
        n_positive, n_negative, true, false, right_at_half, brier, brier_scaled = sums[:, :7].T
        n = n_positive + n_negative
        missed, right = n_positive - true, n_negative - false
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity, specificity = true / n_positive, right / n_negative
            both = np.where((n_positive > 0) & (n_negative > 0), 1.0, np.nan)
            spread = np.sqrt(n_positive * n_negative * (true + false) * (missed + right))
            mcc = np.where(spread == 0, 0.0, (true * right - false * missed) / np.where(spread == 0, 1, spread))
            columns = [
                *self._ranking.evaluate(weights),
                (sensitivity + specificity) / 2,
                *(sensitivity, specificity),
                *(true / (true + false) * both, right / (right + missed) * both),
                2 * true / (2 * true + false + missed) * both,
                mcc * both,
                (true + right) / n,
                right_at_half / n,
                *(brier / n, brier_scaled / n),
                *(np.abs(part).sum(axis=1) / n for part in np.split(sums[:, 7:], 2, axis=1)),
            ]
        return np.stack(columns, axis=1)


def evaluate(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """The five METRICS of one test set, each image once."""
    scorer = BinaryScorer(labels, scores, threshold)
    values = dict(zip(scorer.names, scorer.evaluate(np.ones((1, len(labels))))[0].tolist(), strict=True))
    return {name: values[name] for name in METRICS}


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties one half; NaN when a class is absent. The same number as scikit-learn's."""
    return float(rank(labels, scores).evaluate(np.ones((1, len(labels))))[0][0])


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision, tied scores as one step; NaN when a class is absent. The same number as scikit-learn's."""
    return float(rank(labels, scores).evaluate(np.ones((1, len(labels))))[1][0])
