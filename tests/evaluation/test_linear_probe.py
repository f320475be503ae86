"""The linear probe: scikit-learn's own answer, chosen inside the budget, nothing of the validation rows in the fit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medssl.data.budgets import LabelDraw
from medssl.evaluation.linear_probe import fit_linear_probe, fit_probe


def problem(rows: int, columns: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    features = rng.normal(3, 2, (rows, columns)).astype(np.float32)
    labels = (features[:, 0] + rng.normal(0, 2, rows) > 4).astype(np.int64)
    return features, labels


@pytest.mark.parametrize("shape", [(30, 80), (200, 20)])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_equals_scikit_learn_on_standardised_features(shape, c):
    features, labels = problem(*shape)
    scaler = StandardScaler().fit(features.astype(np.float64))
    reference = LogisticRegression(C=c, class_weight="balanced", max_iter=5000, tol=1e-8).fit(scaler.transform(features), labels)
    probe = fit_probe(features, labels, c)
    assert np.abs(probe.scores(features) - reference.predict_proba(scaler.transform(features))[:, 1]).max() < 2e-3


def test_a_constant_feature_does_no_harm():
    features, labels = problem(40, 10)
    features[:, 3] = 7
    assert np.isfinite(fit_probe(features, labels, 1.0).scores(features)).all()


def draw(labels: np.ndarray, divisions) -> LabelDraw:
    return LabelDraw(
        "all", 0, len(labels), np.arange(len(labels)), labels[:, None], np.arange(len(labels)), divisions, len(divisions) > 1
    )


def test_every_row_of_a_cross_validation_is_scored_by_a_fit_without_it():
    features, labels = problem(60, 8)
    folds = [(np.flatnonzero(np.arange(60) % 3 != k), np.flatnonzero(np.arange(60) % 3 == k)) for k in range(3)]
    fit = fit_linear_probe(features, draw(labels, folds), [0.1])
    for inside, outside in folds:
        assert np.allclose(
            fit.validation_scores[outside], fit_probe(features[inside], labels[inside], 0.1).scores(features[outside])
        )
    assert np.allclose(fit.probe.scores(features), fit_probe(features, labels, 0.1).scores(features))


def test_regularisation_is_chosen_on_validation_alone():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 200)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    half = [(np.arange(40), np.arange(40, 80))]
    strong = fit_linear_probe(features, draw(labels, half), [1e-4, 1e4])
    noise = labels.copy()
    noise[40:] = rng.permutation(noise[40:])  # on noise the simpler model loses least
    assert fit_linear_probe(features, draw(noise, half), [1e-4, 1e4]).regularization == 1e-4
    assert np.isnan(strong.validation_scores[:40]).all()
    assert strong.losses[[1e-4, 1e4].index(strong.regularization)] == min(strong.losses)
