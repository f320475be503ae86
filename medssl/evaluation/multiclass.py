"""The metrics of a classifier of several classes, for thousands of bootstrap replicates at once."""

from __future__ import annotations

import numpy as np

from medssl.evaluation.calibration_bins import BINS, equal_mass_bins, gaps, scaled_classes
from medssl.evaluation.ranking import Ranking, rank


class MulticlassScorer:
    """All metrics of one classifier of C classes; the class called is the one of the highest probability.

    `auroc` is the mean over the classes of one against the rest, `balanced_accuracy` the mean of their recalls, `f1`
    the mean of their F1 scores: a class that is absent makes all three unknown. Matthews' correlation is the
    generalised one (Gorodkin 2004), 0 where all images are called the same. The Brier score is the sum over the
    classes of the squared errors (0 .. 2). The calibration error is that of the class called: 15 bins of about as many
    images each, fixed on the whole test set; before and after temperature scaling, each with its own order.
    """

    names: tuple[str, ...] = (
        *("auroc", "accuracy", "balanced_accuracy", "f1", "mcc", "brier", "brier_scaled", "ece", "ece_scaled"),
    )

    def __init__(self, labels: np.ndarray, scores: np.ndarray, temperature: float = np.nan) -> None:
        """`labels` (N,) index of the class or NaN (unknown, left out); `scores` (N, C) probabilities that sum to 1."""
        labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        self._rankings = one_against_rest(labels, scores)
        known, classes = ~np.isnan(labels), np.arange(scores.shape[1])
        truth = (labels[:, None] == classes).astype(np.float64)
        called = (scores.argmax(axis=1)[:, None] == classes) * known[:, None]
        after = scaled_classes(scores, temperature) if np.isfinite(temperature) else np.full_like(scores, np.nan)
        columns = [truth, called, truth * called]
        columns += [(((values - truth) ** 2).sum(axis=1)[:, None]) for values in (scores, after)]
        right = np.where(known, (truth * called).sum(axis=1), np.nan)
        columns += [_calibration(np.where(known, values.max(axis=1), np.nan), right) for values in (scores, after)]
        self._columns = np.where(known[:, None], np.concatenate(columns, axis=1), 0.0)

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """(R, 9), see `scorers.Scorer`."""
        sums, c = weights @ self._columns, len(self._rankings)
        truth, called, right = sums[:, :c], sums[:, c : 2 * c], sums[:, 2 * c : 3 * c]
        n, errors, bins = truth.sum(axis=1), sums[:, 3 * c : 3 * c + 2], sums[:, 3 * c + 2 :]
        hits = right.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            present = np.where((truth > 0).all(axis=1), 1.0, np.nan)
            spread = np.sqrt((n**2 - (called**2).sum(axis=1)) * (n**2 - (truth**2).sum(axis=1)))
            shared = hits * n - (called * truth).sum(axis=1)
            several = np.where((truth > 0).sum(axis=1) > 1, 1.0, np.nan)
            columns = [
                macro_auroc(self._rankings, weights),
                hits / n,
                (right / truth).mean(axis=1) * present,
                (2 * right / (truth + called)).mean(axis=1) * present,
                np.where(spread > 0, shared / np.where(spread > 0, spread, 1), 0.0) * several,
                *(errors / n[:, None]).T,
                *(np.abs(part).sum(axis=1) / n for part in np.split(bins, 2, axis=1)),
            ]
        return np.stack(columns, axis=1)


def _calibration(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, BINS) columns of the calibration error; all NaN where no confidence is known."""
    if np.isnan(confidence).all():
        return np.full((len(confidence), BINS), np.nan)
    return gaps(confidence, right, equal_mass_bins(confidence))


def one_against_rest(labels: np.ndarray, scores: np.ndarray) -> list[Ranking]:
    """A ranking for each of the C classes. `labels` (N,) index or NaN, `scores` (N, C)."""
    return [
        rank(np.where(np.isnan(labels), np.nan, (labels == index).astype(np.float64)), scores[:, index])
        for index in range(scores.shape[1])
    ]


def macro_auroc(rankings: list[Ranking], weights: np.ndarray) -> np.ndarray:
    """(R,) mean of the one-against-rest AUROCs; NaN where a class is absent."""
    return np.mean([ranking.evaluate(weights)[0] for ranking in rankings], axis=0)
