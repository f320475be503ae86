"""The metrics of a classifier of several yes-or-no targets, for thousands of bootstrap replicates at once."""

from __future__ import annotations

import numpy as np

from medssl.evaluation.binary import BinaryScorer

PER_TARGET = ("auroc", "average_precision")
"""The metrics that are also given for each target, as `auroc/<target>`."""


class MultilabelScorer:
    """The mean over the targets of every binary metric, then the PER_TARGET metrics of each target.

    An image whose label is unknown for a target is left out for that target alone. A target without positive or
    without negative images makes its own metrics, and the means, unknown: a mean over fewer targets would be
    another metric.
    """

    def __init__(
        self,
        targets: tuple[str, ...],
        labels: np.ndarray,
        scores: np.ndarray,
        thresholds: np.ndarray,
        temperature: float = np.nan,
    ) -> None:
        """`labels` (N, T) 0 | 1 | NaN, `scores` (N, T) probabilities, `thresholds` (T,)."""
        self.names = self.names_for(targets)
        self._targets = [BinaryScorer(labels[:, i], scores[:, i], float(thresholds[i]), temperature) for i in range(len(targets))]

    @staticmethod
    def names_for(targets: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the metrics of these targets, in order."""
        return BinaryScorer.names + tuple(f"{name}/{target}" for target in targets for name in PER_TARGET)

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """(R, 15 + 2 T), see `scorers.Scorer`."""
        each = np.stack([scorer.evaluate(weights) for scorer in self._targets])
        own = [each[i][:, BinaryScorer.names.index(name)] for i in range(len(each)) for name in PER_TARGET]
        return np.concatenate([each.mean(axis=0), np.stack(own, axis=1)], axis=1)
