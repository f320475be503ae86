"""The scorer of a task: all metrics of one model on one test set, for thousands of bootstrap replicates at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from medssl.evaluation.binary import BinaryScorer
from medssl.evaluation.multiclass import MulticlassScorer
from medssl.evaluation.multilabel import MultilabelScorer
from medssl.evaluation.ordinal import OrdinalScorer
from medssl.evaluation.regression import RegressionScorer
from medssl.task import Outputs


class Scorer(Protocol):
    """Metrics of one model on N test images."""

    names: tuple[str, ...]

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        """(R, M) float64, columns as `names`. `weights` (R, N): how often replicate r holds image n.

        Fastest where `weights.T` is contiguous. A metric that needs a class which a replicate lacks is NaN, never 0 or 1.
        """
        ...


def names_of(outputs: Outputs) -> tuple[str, ...]:
    """The metrics of a task, in the order of its scorer's `names`."""
    fixed = {
        "binary": BinaryScorer.names,
        "multiclass": MulticlassScorer.names,
        "ordinal": OrdinalScorer.names,
        "regression": RegressionScorer.names,
    }
    return fixed[outputs.kind] if outputs.kind in fixed else MultilabelScorer.names_for(outputs.names)


def scorer_of(
    outputs: Outputs, labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, temperature: float = np.nan
) -> Scorer:
    """The scorer of one cell.

    Args:
        labels: (N, T) float64, NaN unknown; see `data.targets`.
        scores: (N, K) float64, finite.
        thresholds: (T,) operating points of binary and multi-label tasks; not read for others.
        temperature: of the cell; NaN: the metrics after scaling are unknown.
    """
    if outputs.kind == "binary":
        return BinaryScorer(labels[:, 0], scores[:, 0], float(thresholds[0]), temperature)
    if outputs.kind == "multilabel":
        return MultilabelScorer(outputs.names, labels, scores, thresholds, temperature)
    if outputs.kind == "multiclass":
        return MulticlassScorer(labels[:, 0], scores, temperature)
    if outputs.kind == "ordinal":
        return OrdinalScorer(labels[:, 0], scores)
    return RegressionScorer(labels[:, 0], scores[:, 0])
