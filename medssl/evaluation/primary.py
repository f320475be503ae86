"""The one metric of each kind of task: by it an epoch is chosen on validation, inside the label budget."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medssl.task import Outputs

PRIMARY = {
    "binary": "auroc",
    "multiclass": "auroc",
    "multilabel": "auroc",
    "ordinal": "quadratic_kappa",
    "regression": "mae",
}
"""Kind -> metric. auroc: of more than two classes or targets the mean over those that can be told, one against the rest."""


def primary_metric(scores: np.ndarray, labels: np.ndarray, outputs: Outputs) -> float:
    """The metric of (n, K) scores, unweighted; NaN where no class or target can be told, for want of labels.

    Args:
        scores: rows with NaN are left out, of a multilabel task a target at a time.
        labels: (n, T) float64, NaN unknown.
    """
    if outputs.kind in ("binary", "multilabel"):
        return _mean([_auroc(scores[:, target], labels[:, target]) for target in range(labels.shape[1])])
    known = ~np.isnan(scores).any(axis=1) & ~np.isnan(labels[:, 0])
    scores, y = scores[known], labels[known, 0]
    if outputs.kind == "regression":
        return float(np.abs(scores[:, 0] - y).mean()) if len(y) else float("nan")
    if outputs.kind == "multiclass":
        return _mean([_auroc(scores[:, k], (y == k).astype(float)) for k in range(scores.shape[1])])
    if len(np.unique(y)) < 2:
        return float("nan")
    return float(cohen_kappa_score(y, scores.argmax(axis=1), labels=list(range(scores.shape[1])), weights="quadratic"))


def goodness(value: float, outputs: Outputs) -> float:
    """The metric turned so that more is better."""
    return -value if PRIMARY[outputs.kind] == "mae" else value


def _auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    known = ~np.isnan(scores) & ~np.isnan(labels)
    if len(np.unique(labels[known])) < 2:
        return float("nan")
    return float(roc_auc_score(labels[known], scores[known]))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
