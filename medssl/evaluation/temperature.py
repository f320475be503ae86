"""Temperature scaling (Guo et al. 2017, 1706.04599, section 4.2): one number that makes probabilities fit how often they come true.

It is fitted on the validation scores inside the label budget. It changes no rank within a target, so AUROC stays; classes change
places nowhere either.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit

from medssl.evaluation.links import LEAST
from medssl.task import Outputs

FEWEST = 10  # known labels below which nothing is fitted
RANGE = (0.05, 20.0)


def fit_temperature(scores: np.ndarray, labels: np.ndarray, outputs: Outputs) -> float:
    """The temperature with the least log loss; 1.0 where it cannot be fitted, see `why_no_temperature`.

    Args:
        scores: (n, K), rows with NaN are left out.
        labels: (n, T) float64, NaN unknown. Of a multilabel task all targets together have one temperature.
    """
    return _fit(scores, labels, outputs)[0]


def why_no_temperature(scores: np.ndarray, labels: np.ndarray, outputs: Outputs) -> str | None:
    """Why `fit_temperature` gives 1.0 instead of a fit; None where it fits."""
    return _fit(scores, labels, outputs)[1]


def apply_temperature(scores: np.ndarray, temperature: float, outputs: Outputs) -> np.ndarray:
    """(n, K) scores with their logits divided by `temperature`; of values of a regression it changes nothing."""
    if outputs.kind == "regression" or temperature == 1.0:
        return scores
    if outputs.kind in ("multiclass", "ordinal"):
        return np.exp(log_softmax(np.log(np.clip(scores, LEAST, 1)) / temperature, axis=1))
    return expit(_logits(scores) / temperature)


def _fit(scores: np.ndarray, labels: np.ndarray, outputs: Outputs) -> tuple[float, str | None]:
    if outputs.kind == "regression":
        return 1.0, "a value is no probability"
    if outputs.kind in ("multiclass", "ordinal"):
        known = ~np.isnan(scores).any(axis=1) & ~np.isnan(labels[:, 0])
        y = labels[known, 0].astype(np.int64)
        logits = np.log(np.clip(scores[known], LEAST, 1))
        right = logits.argmax(axis=1) == y
    else:
        known = ~np.isnan(scores) & ~np.isnan(labels)
        y = labels[known].astype(np.int64)
        binary = _logits(scores[known])
        logits = np.column_stack([np.zeros(len(y)), binary])
        right = (binary > 0) == (y == 1)
    if len(y) < FEWEST:
        return 1.0, f"{len(y)} validation labels, fewer than {FEWEST}"
    if len(np.unique(y)) < 2:
        return 1.0, "the validation labels are of one class"
    if right.all():
        return 1.0, "every validation image is on the right side, so the least loss is at no temperature"
    rows = np.arange(len(y))
    found = minimize_scalar(
        lambda t: -log_softmax(logits / np.exp(t), axis=1)[rows, y].mean(), bounds=np.log(RANGE), method="bounded"
    )
    return float(np.exp(found.x)), None


def _logits(scores: np.ndarray) -> np.ndarray:
    return logit(np.clip(scores, LEAST, 1 - LEAST))
