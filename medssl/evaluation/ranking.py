"""AUROC and average precision of one score column, for one test set or for thousands of bootstrap replicates at once.

A bootstrap replicate of a test set is the same images with integer weights (how often each was drawn), so the scores
are sorted once. Both metrics are sums over the positive images alone: a replicate costs one pass over its images, in
order of their scores, and the rest over the positives. All counts are exact in float64 (below 2**53).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """The scores of one output on one test set, sorted once; see `rank`.

    Tied scores form one group: no threshold can separate them. G counts the groups that hold a positive image.
    """

    order: np.ndarray  # (K,) images with a known label, by falling score
    positive_images: np.ndarray  # (P,) the positive ones among them, in that order
    positive_starts: np.ndarray  # (G,) where each group begins among `positive_images`
    starts: np.ndarray  # (G,) where each group begins in `order`
    ends: np.ndarray  # (G,) where it ends, exclusive
    mixed: bool  # whether some group holds both classes

    def evaluate(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(R,) AUROC and (R,) average precision of every replicate; `weights` (R, N) as in `scorers.Scorer`.

        AUROC counts tied pairs one half (the Mann-Whitney statistic). Average precision is scikit-learn's step-wise
        sum over the distinct scores of precision times the gain in recall, without interpolation; without negatives
        it would be 1 whatever the scores are, so it is unknown there too. NaN where a class was not drawn.
        """
        images_first = weights.T
        unknown = np.full(weights.shape[0], np.nan)
        if not len(self.ends) or self.ends[-1] == 0:
            return unknown, unknown
        drawn = np.take(images_first, self.order, axis=0)
        positives = np.take(images_first, self.positive_images, axis=0)
        if len(self.positive_starts) < len(self.positive_images):
            positives = np.add.reduceat(positives, self.positive_starts, axis=0)
        # reduceat sums from one group's end to the next one's: negatives in between are counted with the later group.
        steps = np.add.reduceat(drawn[: self.ends[-1]], np.r_[0, self.ends[:-1]], axis=0)
        total = steps.sum(axis=0) + drawn[self.ends[-1] :].sum(axis=0)
        above = np.cumsum(steps, axis=0)  # (G, R) images at or above each group
        true = np.cumsum(positives, axis=0)  # (G, R) positives at or above it
        n_positive = true[-1]
        n_negative = total - n_positive
        with np.errstate(invalid="ignore", divide="ignore"):
            # A positive beats the negatives below it, and half of those tied with it.
            below = n_negative - (above - true)
            if self.mixed:
                below = below + (self._group_totals(drawn) - positives) / 2
            auroc = np.einsum("gr,gr->r", positives, below) / (n_positive * n_negative)
            precision = np.divide(true, above, out=np.zeros(true.shape), where=above > 0)
            average_precision = np.einsum("gr,gr->r", positives, precision) / n_positive
        both = np.where((n_positive > 0) & (n_negative > 0), 1.0, np.nan)
        return auroc * both, average_precision * both

    def _group_totals(self, drawn: np.ndarray) -> np.ndarray:
        edges = np.stack([self.starts, self.ends], axis=1).ravel()
        # The last group may end with the table, where reduceat takes no edge.
        if edges[-1] == len(drawn):
            edges = edges[:-1]
        return np.add.reduceat(drawn, edges, axis=0)[::2]


def rank(labels: np.ndarray, scores: np.ndarray) -> Ranking:
    """Sort once. `labels` (N,) 0 | 1 | NaN (unknown, left out) and `scores` (N,) finite, N >= 1."""
    labels, scores = checked(labels, scores)
    known = np.flatnonzero(~np.isnan(labels))
    order = known[np.argsort(-scores[known], kind="stable")]
    falling, positive = scores[order], labels[order] == 1
    first = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]]) if len(order) else np.zeros(0, np.int64)
    ends = np.r_[first[1:], len(order)] if len(order) else first
    group = np.repeat(np.arange(len(first)), ends - first)
    sizes = np.bincount(group[positive], minlength=len(first))
    with_positives = np.flatnonzero(sizes)
    starts = np.cumsum(sizes[with_positives]) - sizes[with_positives]
    mixed = bool((sizes[with_positives] < (ends - first)[with_positives]).any())
    return Ranking(order, order[positive], starts, first[with_positives], ends[with_positives], mixed)


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N,). Raises ValueError for another shape, a label that is not 0, 1 or NaN, a score not finite."""
    labels = np.asarray(labels, dtype=np.float64)
    scores = np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape or not len(labels):
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must be (N,) with N >= 1")
    if not (np.isin(labels, (0.0, 1.0)) | np.isnan(labels)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return labels, scores
