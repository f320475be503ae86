from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medssl.evaluation.binary import METRICS, BinaryScorer, auroc, average_precision, evaluate

# Few distinct scores, so that most examples have ties within and between the classes.
cases = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 6).map(lambda i: i / 7), st.integers(0, 4)), min_size=2, max_size=40
).filter(lambda rows: {y for y, _, w in rows if w} == {0, 1})


def _arrays(rows):
    labels, scores, weights = map(np.array, zip(*rows, strict=True))
    return labels, scores, weights


def _sklearn(labels, scores, threshold, weights=None):
    called = scores >= threshold
    return [
        sk.roc_auc_score(labels, scores, sample_weight=weights),
        sk.average_precision_score(labels, scores, sample_weight=weights),
        sk.balanced_accuracy_score(labels, called, sample_weight=weights),
        sk.recall_score(labels, called, sample_weight=weights),
        sk.recall_score(labels, called, pos_label=0, sample_weight=weights),
    ]


@settings(deadline=None, max_examples=80)
@given(cases, st.sampled_from([-1.0, 0.0, 2 / 7, 0.5, 6 / 7, 2.0]))
def test_weighted_metrics_are_those_of_scikit_learn(rows, threshold):
    labels, scores, weights = _arrays(rows)
    got = BinaryScorer(labels, scores, threshold).evaluate(weights[None])[0][:5]
    # Integer weights mean repeated images, which is what a bootstrap replicate is.
    repeated = np.repeat(np.arange(len(labels)), weights)
    np.testing.assert_allclose(got, _sklearn(labels[repeated], scores[repeated], threshold), rtol=0, atol=1e-12)
    np.testing.assert_allclose(got, _sklearn(labels, scores, threshold, weights), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(cases)
def test_unweighted_metrics_are_those_of_scikit_learn(rows):
    labels, scores, weights = _arrays(rows)
    labels, scores = labels[weights > 0], scores[weights > 0]
    assert list(evaluate(labels, scores, 0.4)) == list(METRICS)
    np.testing.assert_allclose(list(evaluate(labels, scores, 0.4).values()), _sklearn(labels, scores, 0.4), rtol=0, atol=1e-12)
    assert auroc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)


def test_many_replicates_equal_one_at_a_time():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 500), rng.random(500).round(2)
    weights = rng.poisson(1, size=(20, 500))
    scorer = BinaryScorer(labels, scores, 0.3, 1.5)
    together = scorer.evaluate(weights)
    assert together.shape == (20, 15)
    alone = np.concatenate([scorer.evaluate(row[None]) for row in weights])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)


def test_known_answers():
    labels, scores = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    assert evaluate(labels, scores, 0.35) == {
        "auroc": 0.75,
        "average_precision": pytest.approx(5 / 6),
        "balanced_accuracy": 0.75,
        "sensitivity": 1.0,
        "specificity": 0.5,
    }
    assert auroc([0, 1], [0.5, 0.5]) == 0.5
    assert average_precision([0, 0, 1], [0.5, 0.5, 0.5]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("labels", "known"), [([1, 1, 1], "sensitivity"), ([0, 0, 0], "specificity")])
def test_an_absent_class_is_unknown_not_zero(labels, known):
    values = evaluate(labels, [0.2, 0.6, 0.9], 0.5)
    assert {name for name, value in values.items() if not np.isnan(value)} == {known}
    assert values[known] == pytest.approx(2 / 3 if known == "sensitivity" else 1 / 3)


def test_a_replicate_without_a_class_is_unknown_and_leaves_the_others_alone():
    values = BinaryScorer([1, 0], [0.9, 0.1], 0.5).evaluate(np.array([[2, 0], [1, 1], [0, 2]]))[:, :5]
    assert np.isnan(values[[0, 2], 0]).all()
    np.testing.assert_array_equal(values[1], np.ones(5))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 1], [0.1], "must be"),
        ([], [], "must be"),
    ],
)
def test_bad_input_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        evaluate(labels, scores, 0.5)
