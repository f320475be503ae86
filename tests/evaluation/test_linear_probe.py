"""The linear probe: scikit-learn's own answer for every kind of task, chosen inside the budget, nothing of the validation rows in the fit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from medssl.data.budgets import LabelDraw
from medssl.evaluation.linear_probe import fit_head, fit_linear
from medssl.task import Outputs

BINARY = Outputs("binary", ("ill",))
THREE = Outputs("multiclass", ("a", "b", "c"))


def problem(rows: int, columns: int, classes: int = 2, seed: int = 0):
    """Correlated features of unequal size, and labels (rows, 1) that part of them explains."""
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.normal(1, 2, (rows, 12)) @ rng.normal(size=(12, columns)) + rng.normal(size=(rows, columns)), 0)
    signal = features[:, : columns // 4].sum(axis=1)
    signal = (signal - signal.mean()) / signal.std() + rng.normal(0, 0.5, rows)
    labels = np.digitize(signal, np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1] * 0.8))
    return features.astype(np.float32), labels[:, None].astype(np.float64)


def draw(labels: np.ndarray, divisions=None) -> LabelDraw:
    n = len(labels)
    divisions = divisions or [(np.flatnonzero(np.arange(n) % 3 != k), np.flatnonzero(np.arange(n) % 3 == k)) for k in range(3)]
    return LabelDraw("all", 0, n, np.arange(n), labels, np.arange(n), divisions, len(divisions) > 1)


def scikit_learn(features, labels, c, others):
    features, others = features.astype(np.float64), others.astype(np.float64)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=50_000, tol=1e-8)
    return model.fit(scaler.transform(features), labels[:, 0]).predict_proba(scaler.transform(others))


@pytest.mark.parametrize(
    "shape", [(30, 80), (200, 20), (900, 500)]
)  # few rows, few columns, the Hessian that is factorised seldom
@pytest.mark.parametrize("c", [0.001, 1.0, 10.0])
def test_two_classes_equal_scikit_learn(shape, c):
    features, labels = problem(*shape)
    others = problem(*shape, seed=1)[0]
    head = fit_head(features, labels, BINARY, (c,))
    for images in (features, others):
        assert np.abs(head.scores(images)[:, 0] - scikit_learn(features, labels, c, images)[:, 1]).max() < 1e-3


@pytest.mark.parametrize("shape", [(40, 80), (200, 20)])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_more_classes_equal_scikit_learn(shape, c):
    features, labels = problem(*shape, classes=3)
    scores = fit_head(features, labels, THREE, (c,)).scores(features)
    assert np.allclose(scores.sum(axis=1), 1)
    assert np.abs(scores - scikit_learn(features, labels, c, features)).max() < 1e-3


def test_a_path_of_strengths_and_a_near_start_change_nothing():
    features, labels = problem(700, 450)
    fit = fit_linear(features, draw(labels), BINARY, [0.001, 0.1, 10.0])
    alone = fit_head(features, labels, BINARY, fit.regularization)
    assert np.abs(fit.scores(features) - alone.scores(features)).max() < 1e-4


@pytest.mark.parametrize("shape", [(30, 80), (200, 20)])
def test_regression_equals_ridge_on_standardised_labels(shape):
    features, _ = problem(*shape)
    labels = 40 + 15 * features[:, :1].astype(np.float64) + np.random.default_rng(2).normal(0, 3, (len(features), 1))
    scaler, mean, std = StandardScaler().fit(features.astype(np.float64)), labels.mean(), labels.std()
    reference = Ridge(alpha=1 / 0.1).fit(scaler.transform(features), (labels[:, 0] - mean) / std)
    scores = fit_head(features, labels, Outputs("regression", ("age",)), (0.1,)).scores(features)
    assert np.allclose(scores[:, 0], reference.predict(scaler.transform(features)) * std + mean, atol=1e-6)


def test_an_ordinal_probe_is_a_probability_of_classes_that_follow_the_order():
    features, labels = problem(300, 20, classes=4)
    outputs = Outputs("ordinal", ("none", "mild", "moderate", "severe"))
    scores = fit_linear(features, draw(labels), outputs, [0.01, 0.1, 1.0]).scores(features)
    assert (scores >= 0).all()
    assert np.allclose(scores.sum(axis=1), 1)
    expected = scores @ np.arange(4)
    assert np.corrcoef(expected, labels[:, 0])[0, 1] > 0.7
    assert set(scores.argmax(axis=1)) == {0, 1, 2, 3}  # the classes in the middle are given too


def test_an_unknown_label_is_never_read():
    features, first = problem(90, 12)
    labels = np.hstack([first, 1 - first])
    labels[::4, 1] = np.nan
    outputs = Outputs("multilabel", ("one", "two"))
    fit = fit_linear(features, draw(labels), outputs, [0.1, 1.0])
    assert np.isnan(fit.validation_scores[::4, 1]).all()
    assert not np.isnan(np.delete(fit.validation_scores[:, 1], np.s_[::4])).any()
    known = ~np.isnan(labels[:, 1])
    alone = fit_head(features[known], labels[known][:, [1]], Outputs("binary", ("two",)), (fit.regularization[1],))
    assert np.abs(fit.scores(features)[:, 1] - alone.scores(features)[:, 0]).max() < 1e-4
    elsewhere = features.copy()
    elsewhere[~known] = 99
    again = fit_linear(elsewhere, draw(labels), outputs, [0.1, 1.0])
    assert np.array_equal(again.head.weight[:, 1], fit.head.weight[:, 1])
    assert not np.array_equal(again.head.weight[:, 0], fit.head.weight[:, 0])


def test_a_target_without_one_class_gives_its_prevalence_and_is_named():
    features, first = problem(60, 8)
    labels = np.hstack([first, np.zeros_like(first)])
    labels[40:, 1] = np.nan
    fit = fit_linear(features, draw(labels), Outputs("multilabel", ("one", "rare")), [0.1, 1.0])
    assert np.allclose(fit.scores(features)[:, 1], 1 / 42)  # one image more of each class
    assert fit.unfit == {"rare": "one class alone among 40 known labels"}


def test_a_class_of_which_a_division_has_none_gets_no_probability_there():
    features, labels = problem(60, 8, classes=3)
    order = np.argsort(labels[:, 0], kind="stable")
    features, labels = features[order], labels[order]
    last = np.flatnonzero(labels[:, 0] == 2)
    halves = [(np.delete(np.arange(60), last), last), (last, np.delete(np.arange(60), last))]
    fit = fit_linear(features, draw(labels, halves), THREE, [1.0])
    assert (fit.validation_scores[last, 2] < 1e-6).all()
    assert fit.unfit["c"] == "one class alone in the fitted rows of 1 of 2 divisions"
    assert (fit.scores(features)[last, 2] > 0.3).any()


def test_a_constant_feature_does_no_harm():
    features, labels = problem(40, 10)
    features[:, 3] = 7
    assert np.isfinite(fit_head(features, labels, BINARY, (1.0,)).scores(features)).all()


def test_every_row_of_a_cross_validation_is_scored_by_a_fit_without_it():
    features, labels = problem(60, 8)
    drawn = draw(labels)
    fit = fit_linear(features, drawn, BINARY, [0.1])
    for inside, outside in drawn.divisions:
        alone = fit_head(features[inside], labels[inside], BINARY, (0.1,))
        assert np.allclose(fit.validation_scores[outside], alone.scores(features[outside]))
    assert np.allclose(fit.scores(features), fit_head(features, labels, BINARY, (0.1,)).scores(features), atol=1e-4)


def test_regularisation_is_chosen_on_validation_alone():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 200)).astype(np.float32)
    labels = (features[:, :1] > 0).astype(np.float64)
    half = [(np.arange(40), np.arange(40, 80))]
    strong = fit_linear(features, draw(labels, half), BINARY, [1e-4, 1e4])
    noise = labels.copy()
    noise[40:] = rng.permutation(noise[40:])  # on noise the simpler model loses least
    assert fit_linear(features, draw(noise, half), BINARY, [1e-4, 1e4]).regularization == (1e-4,)
    assert np.isnan(strong.validation_scores[:40]).all()
    assert strong.losses[[1e-4, 1e4].index(strong.regularization[0])] == min(strong.losses)
