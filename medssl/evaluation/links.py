"""From logits to scores, the same for linear probes and for networks, and what a wrong score costs inside a label budget.

Labels are (n, T) float64, NaN unknown: T is the number of targets for multilabel tasks, else 1. Scores are (n, K): see
`medssl.task.Outputs`. Logits are (n, J): J = K but for ordinal tasks, which have one for each cut between two classes.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from medssl.task import Outputs

LEAST = 1e-12  # a probability of 0 would cost without end


def logits_of(outputs: Outputs) -> int:
    """J, how many logits a model of these outputs has."""
    return len(outputs.names) - 1 if outputs.kind == "ordinal" else len(outputs.names)


def scores_of(logits: np.ndarray, outputs: Outputs) -> np.ndarray:
    """(n, K) scores of (n, J) logits.

    binary and multilabel: probabilities. multiclass: probabilities that sum to 1. ordinal: logit j is that of "above class j" (Frank &
    Hall, A simple approach to ordinal classification, 2001, section 2), and the classes' probabilities are differences; where a later
    cut is the more probable the cuts change places, which takes none of them farther from the truth (Chernozhukov, Fernández-Val,
    Galichon, Biometrika 2009, proposition 1). regression: the value as it comes.
    """
    logits = np.asarray(logits, np.float64)
    if outputs.kind == "regression":
        return logits
    if outputs.kind == "multiclass":
        return softmax(logits, axis=1)
    if outputs.kind == "ordinal":
        above = -np.sort(-expit(logits), axis=1)
        edges = np.column_stack([np.ones(len(above)), above, np.zeros(len(above))])
        return edges[:, :-1] - edges[:, 1:]
    return expit(logits)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """(n,) weights with which every class that is there weighs the same, mean 1.

    Args:
        labels: (n,) whole numbers from 0, all known.
    """
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    return (len(labels) / ((counts > 0).sum() * np.maximum(counts, 1)))[labels.astype(np.int64)]


def losses_of(scores: np.ndarray, labels: np.ndarray, outputs: Outputs) -> np.ndarray:
    """(T,) what scores cost on the known labels: the log loss with every class weighing the same; regression: the squared error.

    NaN for a target of which no label is known.
    """
    return np.array([_loss(scores, labels, outputs, target) for target in range(labels.shape[1])])


def _loss(scores: np.ndarray, labels: np.ndarray, outputs: Outputs, target: int) -> float:
    known = ~np.isnan(labels[:, target])
    if not known.any():
        return float("nan")
    y = labels[known, target]
    if outputs.kind == "regression":
        return float(((scores[known, 0] - y) ** 2).mean())
    y = y.astype(np.int64)
    if outputs.kind in ("multiclass", "ordinal"):
        p, classes = scores[known, y], len(outputs.names)
    else:
        p, classes = np.where(y == 1, scores[known, target], 1 - scores[known, target]), 2
    return float(-(class_weights(y, classes) * np.log(np.clip(p, LEAST, 1))).mean())
