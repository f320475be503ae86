"""Five metrics of a binary classifier, for one test set or for thousands of bootstrap replicates of it at once.

A bootstrap replicate of a test set is the same images with integer weights (how often each was drawn), so the scores
are sorted once and every replicate costs two cumulative sums. All counts are exact in float64 (below 2**53).

A metric that needs a class which is absent is unknown: NaN, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

METRICS = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Ranking:
    """The scores of one model on one test set, sorted once; see `rank`.

    Tied scores form one group: no threshold can separate them.
    """

    order: np.ndarray  # (N,) images by falling score
    positive: np.ndarray  # (N,) float64 0 | 1, in that order
    starts: np.ndarray  # (G,) position of the first image of each group of tied scores
    called: int  # number of groups at or above the threshold

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """The metrics of every replicate.

        `weights` is (R, N): how often replicate r holds image n, images in the order given to `rank`. Returns (R, 5)
        float64, columns in the order of METRICS. A replicate without positives or without negatives is all NaN but
        for the specificity or the sensitivity of the class that it has.

        AUROC counts tied pairs one half (the Mann-Whitney statistic). Average precision is scikit-learn's step-wise
        sum over the distinct scores of precision times the gain in recall, without interpolation; without negatives
        it would be 1 whatever the scores are, so it is unknown there too.
        """
        # Images first: rows are then contiguous, which makes the gather and the cumulative sums several times faster.
        drawn = np.asarray(weights).T[self.order].astype(np.float64, copy=False)
        positives = self._by_group(drawn * self.positive[:, None])
        negatives = self._by_group(drawn) - positives
        true = np.cumsum(positives, axis=0)  # (G, R) positives at or above each distinct score
        false = np.cumsum(negatives, axis=0)
        n_positive, n_negative = true[-1], false[-1]
        both = np.where((n_positive > 0) & (n_negative > 0), 1.0, np.nan)

        with np.errstate(invalid="ignore", divide="ignore"):
            # A negative loses to the positives above it, and half to those tied with it.
            auroc = (negatives * (true - positives / 2)).sum(axis=0) / (n_positive * n_negative)
            precision = true / np.maximum(true + false, 1)
            average_precision = (positives * precision).sum(axis=0) / n_positive
            above = self.called - 1
            sensitivity = (true[above] if self.called else 0 * n_positive) / n_positive
            specificity = 1 - (false[above] if self.called else 0 * n_negative) / n_negative
        balanced = (sensitivity + specificity) / 2
        return np.stack([auroc * both, average_precision * both, balanced, sensitivity, specificity], axis=1)

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        if len(self.starts) == len(values):
            return values
        return np.add.reduceat(values, self.starts, axis=0)


def rank(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Ranking:
    """Sort once. `labels` (N,) 0 | 1 and `scores` (N,) finite, N >= 1; an image is called positive at score >= threshold."""
    labels, scores = _checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])
    return Ranking(order, labels[order], starts, int((falling[starts] >= threshold).sum()))


def evaluate(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """All five metrics of one test set, each image once, keyed by METRICS."""
    values = rank(labels, scores, threshold).evaluate(np.ones((1, len(labels))))[0]
    return dict(zip(METRICS, values.tolist(), strict=True))


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties one half; NaN when a class is absent. The same number as scikit-learn's."""
    return evaluate(labels, scores, np.inf)["auroc"]


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision, tied scores as one step; NaN when a class is absent. The same number as scikit-learn's."""
    return evaluate(labels, scores, np.inf)["average_precision"]


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels, dtype=np.float64)
    scores = np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape or not len(labels):
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be (N,) with N >= 1")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return labels, scores
