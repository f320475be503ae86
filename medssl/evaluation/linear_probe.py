"""The linear probe: class-weighted logistic regression on frozen features, its regularisation chosen inside the label budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from medssl.data.budgets import LabelDraw

ITERATIONS = 2000


@dataclass(frozen=True)
class LinearProbe:
    """score = sigmoid(((features - mean) / scale) . weight + bias)."""

    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    weight: np.ndarray  # (D,)
    bias: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N,) probability of the positive class for features (N, D)."""
        logits = ((features - self.mean) / self.scale) @ self.weight + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -500, 500)))


@dataclass(frozen=True)
class LinearFit:
    """A probe fitted on a whole label budget and what was seen inside it."""

    probe: LinearProbe
    regularization: float  # chosen C, the inverse of the strength of the L2 penalty
    validation_scores: np.ndarray  # (rows of the budget,) by the fits that did not see the row; NaN where there was none
    validation_auroc: float
    losses: list[float]  # class-weighted log loss on validation for each C


def fit_linear_probe(features: np.ndarray, draw: LabelDraw, regularization: list[float]) -> LinearFit:
    """Choose C by the class-weighted log loss on validation, then fit on the whole budget.

    Args:
        features: (rows of the draw, D).
        draw: labels and divisions.
        regularization: values of C; of equals the smaller, which is the simpler model.
    """
    # Threads cost more than they bring on problems of this size: one is 3 to 10 times faster on two cores.
    with threadpool_limits(1, user_api="blas"):
        return _choose_and_fit(features, draw, sorted(regularization))


def _choose_and_fit(features: np.ndarray, draw: LabelDraw, tried: list[float]) -> LinearFit:
    scores, labels = np.full((len(tried), len(draw.rows)), np.nan), draw.labels[:, 0]
    for fit, validation in draw.divisions:
        for index, c in enumerate(tried):
            scores[index, validation] = fit_probe(features[fit], labels[fit], c).scores(features[validation])
    seen = ~np.isnan(scores[0])
    losses = [_weighted_log_loss(labels[seen], row[seen]) for row in scores]
    best = int(np.argmin(losses))
    auroc = float(roc_auc_score(labels[seen], scores[best][seen]))
    probe = fit_probe(features, labels, tried[best])
    return LinearFit(probe, tried[best], scores[best], auroc, losses)


def fit_probe(features: np.ndarray, labels: np.ndarray, c: float) -> LinearProbe:
    """One logistic regression with balanced class weights on standardised features (standardised on these rows alone)."""
    features = features.astype(np.float64)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    standard = (features - mean) / scale
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=ITERATIONS)
    if len(standard) >= standard.shape[1]:
        model.fit(standard, labels)
        return LinearProbe(mean, scale, model.coef_[0], float(model.intercept_[0]))
    # With fewer rows than columns the L2 solution lies in the span of the rows: fit in their coordinates, the same model
    # at a fraction of the cost.
    left, singular, right = np.linalg.svd(standard, full_matrices=False)
    model.fit(left * singular, labels)
    return LinearProbe(mean, scale, model.coef_[0] @ right, float(model.intercept_[0]))


def _weighted_log_loss(labels: np.ndarray, scores: np.ndarray) -> float:
    scores = np.clip(scores, 1e-12, 1 - 1e-12)
    return float(-(np.log(scores[labels == 1]).mean() + np.log(1 - scores[labels == 0]).mean()) / 2)
