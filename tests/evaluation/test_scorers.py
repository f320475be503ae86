"""Every metric of every kind of task against scikit-learn, on bootstrap replicates, with ties, unknown labels and absent classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import pearsonr
from sklearn import metrics as sk
from sklearn.preprocessing import label_binarize

from medssl.evaluation.metrics import METRICS, PRIMARY, is_better, metric, title
from medssl.evaluation.scorers import names_of, scorer_of
from medssl.task import KINDS, Outputs

NOT_A_NUMBER = float("nan")


def _values(outputs, labels, scores, thresholds=(NOT_A_NUMBER,), temperature=NOT_A_NUMBER, weights=None):
    scorer = scorer_of(outputs, labels, scores, np.asarray(thresholds, dtype=float), temperature)
    weights = np.ones((1, len(labels))) if weights is None else weights[None]
    return dict(zip(scorer.names, scorer.evaluate(weights)[0], strict=True))


def _ece(confidence, right, whole, bins=15):
    """By the definition, bins of the whole test set at its quantiles (no ties here, and as many images in each)."""
    edges = np.sort(whole)[np.ceil(np.arange(1, bins) * len(whole) / bins).astype(int) - 1]
    of_bin = np.searchsorted(edges, confidence)
    parts = [(of_bin == b).mean() * abs(confidence[of_bin == b].mean() - right[of_bin == b].mean()) for b in np.unique(of_bin)]
    return sum(parts)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_binary_on_a_replicate(rng):
    labels, scores = rng.integers(0, 2, 300).astype(float), rng.random(300)
    weights = rng.poisson(1, 300)
    got = _values(Outputs("binary", ("yes",)), labels[:, None], scores[:, None], [0.4], 2.0, weights)
    rows = np.repeat(np.arange(300), weights)
    y, s = labels[rows], scores[rows]
    called, scaled = s >= 0.4, expit(np.log(s / (1 - s)) / 2)
    expected = {
        "auroc": sk.roc_auc_score(y, s),
        "average_precision": sk.average_precision_score(y, s),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "sensitivity": sk.recall_score(y, called),
        "specificity": sk.recall_score(y, called, pos_label=0),
        "ppv": sk.precision_score(y, called),
        "npv": sk.precision_score(y, called, pos_label=0),
        "f1": sk.f1_score(y, called),
        "mcc": sk.matthews_corrcoef(y, called),
        "accuracy": sk.accuracy_score(y, called),
        "accuracy_at_half": sk.accuracy_score(y, s > 0.5),
        "brier": sk.brier_score_loss(y, s),
        "brier_scaled": sk.brier_score_loss(y, scaled),
        "ece": _ece(s, y, scores),
        "ece_scaled": _ece(scaled, y, expit(np.log(scores / (1 - scores)) / 2)),
    }
    assert got == pytest.approx(expected, abs=1e-12)


def test_several_classes_on_a_replicate(rng):
    labels = rng.integers(0, 4, 450).astype(float)
    scores = softmax(rng.normal(size=(450, 4)) + 1.5 * np.eye(4)[labels.astype(int)], axis=1)
    weights = rng.poisson(1, 450)
    got = _values(Outputs("multiclass", tuple("abcd")), labels[:, None], scores, temperature=0.5, weights=weights)
    rows = np.repeat(np.arange(450), weights)
    y, s = labels[rows], scores[rows]
    scaled = softmax(np.log(s) / 0.5, axis=1)
    truth, called = label_binarize(y, classes=range(4)), s.argmax(axis=1)
    whole = softmax(np.log(scores) / 0.5, axis=1).max(axis=1)
    expected = {
        "auroc": sk.roc_auc_score(y, s, multi_class="ovr", average="macro"),
        "accuracy": sk.accuracy_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "f1": sk.f1_score(y, called, average="macro"),
        "mcc": sk.matthews_corrcoef(y, called),
        "brier": ((s - truth) ** 2).sum(axis=1).mean(),
        "brier_scaled": ((scaled - truth) ** 2).sum(axis=1).mean(),
        "ece": _ece(s.max(axis=1), called == y, scores.max(axis=1)),
        "ece_scaled": _ece(scaled.max(axis=1), called == y, whole),
    }
    assert got == pytest.approx(expected, abs=1e-12)


def test_several_targets_are_means_that_leave_unknown_labels_out(rng):
    labels = rng.integers(0, 2, (300, 3)).astype(float)
    scores = expit(rng.normal(size=(300, 3)) + labels)
    labels[rng.random((300, 3)) < 0.3] = np.nan
    thresholds = [0.3, 0.5, 0.6]
    targets = ("Effusion", "Mass", "Nodule")
    weights = rng.poisson(1, 300)
    got = _values(Outputs("multilabel", targets), labels, scores, thresholds, 1.5, weights)
    each = []
    for i, target in enumerate(targets):
        known = ~np.isnan(labels[:, i])
        alone = _values(
            Outputs("binary", ("yes",)),
            labels[known, i : i + 1],
            scores[known, i : i + 1],
            thresholds[i : i + 1],
            1.5,
            weights[known],
        )
        each.append(alone)
        for name in ("auroc", "average_precision"):
            assert got[f"{name}/{target}"] == pytest.approx(alone[name], abs=1e-12)
    for name in each[0]:
        assert got[name] == pytest.approx(np.mean([alone[name] for alone in each]), abs=1e-12), name


def test_a_target_without_positives_makes_its_metrics_and_the_means_unknown(rng):
    labels = rng.integers(0, 2, (60, 2)).astype(float)
    labels[:, 1] = np.where(labels[:, 1] == 1, np.nan, 0)
    got = _values(Outputs("multilabel", ("a", "b")), labels, rng.random((60, 2)), [0.5, 0.5])
    assert math.isnan(got["auroc"])
    assert math.isnan(got["auroc/b"])
    assert 0 < got["auroc/a"] < 1


def test_grades_on_a_replicate(rng):
    labels = rng.integers(0, 5, 300).astype(float)
    scores = softmax(rng.normal(size=(300, 5)) + 2 * np.eye(5)[labels.astype(int)], axis=1)
    weights = rng.poisson(1, 300)
    got = _values(Outputs("ordinal", tuple("01234")), labels[:, None], scores, weights=weights)
    rows = np.repeat(np.arange(300), weights)
    y, s, called = labels[rows], scores[rows], scores[rows].argmax(axis=1)
    expected = {
        "quadratic_kappa": sk.cohen_kappa_score(y, called, weights="quadratic"),
        "mae": sk.mean_absolute_error(y, called),
        "accuracy": sk.accuracy_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "auroc": sk.roc_auc_score(y, s, multi_class="ovr", average="macro"),
    }
    assert got == pytest.approx(expected, abs=1e-12)


def test_numbers_on_a_replicate_also_far_from_zero(rng):
    labels = 1e6 + 3 * rng.normal(size=200)
    scores = labels + rng.normal(size=200)
    weights = rng.poisson(1, 200)
    got = _values(Outputs("regression", ("age",)), labels[:, None], scores[:, None], weights=weights)
    rows = np.repeat(np.arange(200), weights)
    y, s = labels[rows], scores[rows]
    assert got == pytest.approx(
        {
            "mae": sk.mean_absolute_error(y, s),
            "rmse": sk.root_mean_squared_error(y, s),
            "r2": sk.r2_score(y, s),
            "pearson": pearsonr(y, s)[0],
        },
        rel=1e-9,
    )


@pytest.mark.parametrize("kind", ["multiclass", "ordinal"])
def test_an_absent_class_is_unknown_and_never_0_or_1(kind, rng):
    labels = rng.integers(0, 2, 50).astype(float)  # the third class is absent
    scores = softmax(rng.normal(size=(50, 3)), axis=1)
    got = _values(Outputs(kind, tuple("abc")), labels[:, None], scores)
    assert math.isnan(got["auroc"])
    assert math.isnan(got["balanced_accuracy"])
    assert 0 <= got["accuracy"] <= 1


def test_unknown_labels_are_left_out(rng):
    labels = rng.integers(0, 3, 90).astype(float)
    scores = softmax(rng.normal(size=(90, 3)), axis=1)
    kept = _values(Outputs("multiclass", tuple("abc")), labels[:60, None], scores[:60])
    labels[60:] = np.nan
    got = _values(Outputs("multiclass", tuple("abc")), labels[:, None], scores)
    assert got == pytest.approx(kept, abs=1e-12, nan_ok=True)


def test_calling_all_images_the_same_is_worth_no_correlation(rng):
    labels, scores = rng.integers(0, 2, 40).astype(float)[:, None], np.full((40, 1), 0.7)
    got = _values(Outputs("binary", ("yes",)), labels, scores, [0.5])
    assert (got["mcc"], got["auroc"]) == (0.0, 0.5)
    assert math.isnan(_values(Outputs("binary", ("yes",)), labels, scores, [0.9])["ppv"])


def test_tied_scores_share_a_bin_whatever_their_order(rng):
    labels, scores = rng.integers(0, 2, 200).astype(float), rng.integers(0, 7, 200) / 7
    order = rng.permutation(200)
    binary = Outputs("binary", ("yes",))
    one, other = (_values(binary, labels[rows, None], scores[rows, None], [0.5])["ece"] for rows in (np.arange(200), order))
    assert one == pytest.approx(other, abs=1e-12)


def test_every_name_has_an_entry_and_every_kind_a_primary_metric():
    for kind in KINDS:
        names = names_of(Outputs(kind, ("a", "b")))
        assert PRIMARY[kind] in names
        for name in names:
            assert metric(name) in METRICS.values()
    assert title("auroc/Effusion") == "AUROC of Effusion"
    assert is_better("auroc", 0.1)
    assert is_better("mae", -0.1)
    assert not is_better("mae", 0.0)
