"""kNN for watching: brute force, and no vote of a patient's own images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medssl.data.budgets import LabelDraw
from medssl.evaluation.knn import Neighbours, fit_knn, knn_auroc
from medssl.task import Outputs


def test_equals_brute_force():
    rng = np.random.default_rng(0)
    features, labels, groups = rng.normal(size=(60, 5)), rng.integers(0, 2, 60), np.arange(60) // 2
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scores = []
    for i in range(60):
        others = sorted((j for j in range(60) if groups[j] != groups[i]), key=lambda j, i=i: -unit[i] @ unit[j])[:15]
        weights = np.array([np.exp(unit[i] @ unit[j] / 0.2) for j in others])
        scores.append(weights @ labels[others] / weights.sum())
    assert np.isclose(knn_auroc(features, labels, groups), roc_auc_score(labels, scores))


def test_own_images_have_no_vote():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(30, 8))
    features, labels = centres.repeat(4, 0) + rng.normal(0, 1e-3, (120, 8)), rng.integers(0, 2, 30).repeat(4)
    leaking = knn_auroc(features, labels, np.arange(120))
    assert leaking > 0.99
    assert knn_auroc(features, labels, np.arange(30).repeat(4)) < 0.75


def test_one_class_is_unknown():
    assert np.isnan(knn_auroc(np.ones((5, 2)), np.ones(5, int), np.arange(5)))


BINARY = Outputs("binary", ("ill",))


def draw(labels: np.ndarray, folds: int = 3) -> LabelDraw:
    n, fold = len(labels), np.arange(len(labels)) % folds
    divisions = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
    return LabelDraw("all", 0, n, np.arange(n), labels, np.arange(n), divisions, True)


def problem(rows: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(rows) // 3 % 2).astype(np.float64)
    return (rng.normal(size=(rows, 6)) + 2 * labels[:, None] * np.eye(6)[0]).astype(np.float32), labels[:, None]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_the_vote_equals_brute_force(kind):
    features, labels = problem()
    outputs = Outputs(kind, ("a", "b") if kind == "multiclass" else ("a",))
    fit = fit_knn(features, draw(labels), outputs, [7], 0.1)
    others = problem(20, seed=1)[0]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for image, score in zip(others, fit.scores(others), strict=True):
        similarity = unit @ (image / np.linalg.norm(image))
        near = np.argsort(-similarity)[:7]
        weights = np.exp(similarity[near] / 0.1)
        share = weights @ labels[near, 0] / weights.sum()
        assert np.allclose(score, [1 - share, share] if kind == "multiclass" else [share], atol=1e-5)


def test_k_is_clipped_and_chosen_on_validation_by_other_rows():
    features, labels = problem()
    fit = fit_knn(features, draw(labels), BINARY, [1, 5, 1000], 0.1)
    alone = [fit_knn(features, draw(labels), BINARY, [k], 0.1) for k in (60, 5, 1)]
    assert fit.losses == [each.losses[0] for each in alone]
    assert fit.k == (60, 5, 1)[int(np.argmin(fit.losses))]
    inside, outside = draw(labels).divisions[0]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    without = Neighbours(unit[inside], labels[inside], BINARY, fit.k, 0.1)
    assert np.allclose(fit.validation_scores[outside], without.scores(features[outside]))


def test_an_image_whose_label_is_unknown_has_no_vote_on_that_target():
    features, first = problem()
    labels = np.hstack([first, first])
    labels[::2, 1] = np.nan
    outputs = Outputs("multilabel", ("one", "two"))
    fit = fit_knn(features, draw(labels), outputs, [5], 0.1)
    known = fit_knn(features[1::2], draw(first[1::2]), BINARY, [5], 0.1)
    others = problem(20, seed=1)[0]
    assert np.allclose(fit.scores(others)[:, 1], known.scores(others)[:, 0])
    assert not np.allclose(fit.scores(others)[:, 0], fit.scores(others)[:, 1])
