"""The linear probe: regression on frozen features, its regularisation chosen inside the label budget.

binary: logistic. multiclass: softmax. multilabel: a logistic regression a target, on the rows where that target is known. ordinal:
a logistic regression for each cut between two classes. regression: ridge on standardised labels. Classes weigh the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from medssl.data.budgets import LabelDraw
from medssl.evaluation.links import class_weights, losses_of, scores_of
from medssl.evaluation.logistic import Basis, basis_of, fit_path
from medssl.task import Outputs

FEW_ROWS = 600  # up to which the threads of a matrix product cost more than they bring
ABSENT = -30.0  # the logit of a class that no fitted row has


@dataclass(frozen=True)
class LinearHead:
    """logits = features . weight + bias; see `medssl.evaluation.links` for the scores."""

    weight: np.ndarray  # (D, J) float64, for features as they come
    bias: np.ndarray  # (J,)
    outputs: Outputs

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n, K) scores of features (n, D)."""
        return scores_of(features.astype(np.float64) @ self.weight + self.bias, self.outputs)


@dataclass(frozen=True)
class LinearFit:
    """A probe fitted on a whole label budget and what was seen inside it."""

    head: LinearHead
    regularization: tuple[float, ...]  # the C chosen: one, multilabel one a target
    validation_scores: np.ndarray  # (rows of the budget, K) by fits that did not see the row; NaN where there was none
    losses: list[list[float]]  # of each C in rising order, on validation, one a target; see `links.losses_of`
    unfit: dict[str, str] = field(default_factory=dict)  # output -> why it gives the prevalence instead

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n, K) scores of features (n, D)."""
        return self.head.scores(features)


def fit_linear(features: np.ndarray, draw: LabelDraw, outputs: Outputs, regularization: list[float]) -> LinearFit:
    """Choose C by the loss on validation, then fit on the whole budget.

    A target of which the fitted rows have one class alone gives their prevalence, with one image more of each class so that it is
    never certain; a class of many that is absent there gets no probability. Both are named in `unfit`.

    Args:
        features: (rows of the draw, D).
        draw: labels (n, T), NaN unknown, and divisions.
        regularization: values of C, the inverse of the penalty's strength; of equals the smaller, which is the simpler model.
    """
    tried = sorted(set(regularization))
    with threadpool_limits(1 if len(draw.rows) <= FEW_ROWS else None, user_api="blas"):
        if outputs.kind != "multilabel":
            return _choose_and_fit(features, draw.labels, draw.divisions, outputs, tried)
        return _one_a_target(features, draw, outputs, tried)


def fit_head(features: np.ndarray, labels: np.ndarray, outputs: Outputs, regularization: tuple[float, ...]) -> LinearHead:
    """One head on all the given rows, with the C (multilabel: one a target) that `fit_linear` chose.

    Args:
        features: (n, D).
        labels: (n, T) float64, NaN unknown.
    """
    if outputs.kind != "multilabel":
        return _path(features, labels[:, 0], outputs, list(regularization))[0][0]
    heads = []
    for column, (name, c) in enumerate(zip(outputs.names, regularization, strict=True)):
        known = ~np.isnan(labels[:, column])
        heads.append(_path(features[known], labels[known, column], Outputs("binary", (name,)), [c])[0][0])
    return _joined(heads, outputs)


def _one_a_target(features: np.ndarray, draw: LabelDraw, outputs: Outputs, tried: list[float]) -> LinearFit:
    fits, scores = [], np.full((len(draw.rows), len(outputs.names)), np.nan)
    for column, name in enumerate(outputs.names):
        known = ~np.isnan(draw.labels[:, column])
        place = np.cumsum(known) - 1
        divisions = [(place[fit[known[fit]]], place[held[known[held]]]) for fit, held in draw.divisions]
        fit = _choose_and_fit(features[known], draw.labels[known][:, [column]], divisions, Outputs("binary", (name,)), tried)
        fits.append(fit)
        scores[known, column] = fit.validation_scores[:, 0]
    return LinearFit(
        _joined([fit.head for fit in fits], outputs),
        tuple(fit.regularization[0] for fit in fits),
        scores,
        [[losses[0] for losses in each] for each in zip(*(fit.losses for fit in fits), strict=True)],
        {name: reason for fit in fits for name, reason in fit.unfit.items()},
    )


def _joined(heads: list[LinearHead], outputs: Outputs) -> LinearHead:
    return LinearHead(np.hstack([h.weight for h in heads]), np.concatenate([h.bias for h in heads]), outputs)


def _choose_and_fit(features: np.ndarray, labels: np.ndarray, divisions: list, outputs: Outputs, tried: list[float]) -> LinearFit:
    scores = np.full((len(tried), len(labels), len(outputs.names)), np.nan)
    heads: list[LinearHead] = []
    lacking: Counter[str] = Counter()
    for fit, held in divisions:
        heads, absent = _path(features[fit], labels[fit, 0], outputs, tried)
        lacking.update(absent)
        for index, head in enumerate(heads):
            scores[index, held] = head.scores(features[held])
    seen = ~np.isnan(scores[0]).any(axis=1)
    losses = [losses_of(each[seen], labels[seen], outputs).tolist() for each in scores]
    best = 0 if np.isnan(losses).all() else int(np.nanargmin([each[0] for each in losses]))
    # The last division's solution is near: from there the fit on the whole budget is short.
    whole, absent = _path(features, labels[:, 0], outputs, [tried[best]], heads[best])
    unfit = {name: f"one class alone in the fitted rows of {n} of {len(divisions)} divisions" for name, n in lacking.items()}
    unfit |= {name: f"one class alone among {len(labels)} known labels" for name in absent}
    return LinearFit(whole[0], (tried[best],), scores[best], losses, unfit)


def _path(
    features: np.ndarray, labels: np.ndarray, outputs: Outputs, tried: list[float], near: LinearHead | None = None
) -> tuple[list[LinearHead], list[str]]:
    """A head for each C on rows whose labels are all known, and the outputs that these rows say nothing of."""
    if outputs.kind == "regression":
        return _ridge(features, labels, outputs, tried), []
    y = labels.astype(np.int64)
    classes = max(2, len(outputs.names))
    counts = np.bincount(y, minlength=classes)
    present = np.flatnonzero(counts)
    named = [name for name, n in zip(outputs.names, counts, strict=True) if n == 0] if outputs.kind != "binary" else []
    if len(present) < 2:
        return [_prevalence(features.shape[1], counts, outputs)] * len(tried), named or list(outputs.names)
    basis, weights = basis_of(features), class_weights(y, classes)
    if outputs.kind == "multiclass":
        start = near and (near.weight[:, present], near.bias[present])
        fits = _fitted(basis, np.eye(classes)[y][:, present], weights, tried, start)
        return [_with_absent(*fit, present, outputs) for fit in fits], named
    if outputs.kind == "binary":
        fits = _fitted(basis, y[:, None].astype(float), weights, tried, near and (near.weight, near.bias))
        return [LinearHead(*fit, outputs) for fit in fits], named
    # Of the classes, not of each cut's two sides: sides made equal would leave no room between two cuts for the class there.
    cuts = [
        _cut(basis, y > cut, weights, tried, near and (near.weight[:, [cut]], near.bias[[cut]])) for cut in range(classes - 1)
    ]
    return [_joined([LinearHead(*cut[index], outputs) for cut in cuts], outputs) for index in range(len(tried))], named


Coefficients = tuple[np.ndarray, np.ndarray]  # weight (D, J), bias (J,)


def _fitted(
    basis: Basis, targets: np.ndarray, weights: np.ndarray, tried: list[float], near: Coefficients | None
) -> list[Coefficients]:
    start = None if near is None else basis.solution_near(*near)
    return [basis.coefficients(solution) for solution in fit_path(basis, targets, weights, tried, start)]


def _cut(
    basis: Basis, above: np.ndarray, weights: np.ndarray, tried: list[float], near: Coefficients | None
) -> list[Coefficients]:
    if above.all() or not above.any():
        return [(np.zeros((len(basis.mean), 1)), np.array([-ABSENT if above.all() else ABSENT]))] * len(tried)
    return _fitted(basis, above[:, None].astype(float), weights, tried, near)


def _with_absent(weight: np.ndarray, bias: np.ndarray, present: np.ndarray, outputs: Outputs) -> LinearHead:
    head = LinearHead(np.zeros((len(weight), len(outputs.names))), np.full(len(outputs.names), ABSENT), outputs)
    head.weight[:, present], head.bias[present] = weight, bias
    return head


def _prevalence(dimension: int, counts: np.ndarray, outputs: Outputs) -> LinearHead:
    """Gives every image the share of each class (Laplace's rule of succession)."""
    more = counts + 1.0
    if outputs.kind == "multiclass":
        bias = np.log(more / more.sum())
    else:
        above = np.cumsum(more[::-1])[::-1][1:]
        bias = np.log(above / (more.sum() - above))
    return LinearHead(np.zeros((dimension, len(bias))), bias, outputs)


def _ridge(features: np.ndarray, labels: np.ndarray, outputs: Outputs, tried: list[float]) -> list[LinearHead]:
    """minimise |y - X coef|^2 / 2 + |coef|^2 / (2 C) on labels and features standardised on these rows."""
    basis = basis_of(features)
    mean, scale = labels.mean(), labels.std() or 1.0
    x, y = basis.columns[:, :-1], (labels - mean) / scale  # both are centred, so the intercept is zero
    gram, moment = x.T @ x, x.T @ y
    heads = []
    for c in tried:
        coef = cho_solve(cho_factor(gram + np.eye(len(gram)) / c), moment)
        weight, bias = basis.coefficients(np.append(coef, 0.0)[:, None])
        heads.append(LinearHead(weight * scale, bias * scale + mean, outputs))
    return heads
