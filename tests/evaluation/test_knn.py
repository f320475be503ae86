"""kNN for watching: brute force, and no vote of a patient's own images."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from medssl.evaluation.knn import knn_auroc


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
