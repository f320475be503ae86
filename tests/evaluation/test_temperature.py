"""Temperature: it finds the factor that logits were multiplied with, leaves ranks alone, and says where it cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from medssl.evaluation.temperature import apply_temperature, fit_temperature, why_no_temperature
from medssl.task import Outputs

BINARY = Outputs("binary", ("ill",))
THREE = Outputs("multiclass", ("a", "b", "c"))
TWO_TARGETS = Outputs("multilabel", ("one", "two"))


def over_confident(outputs: Outputs, factor: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose logits are `factor` times those by which the labels were drawn."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (n, len(outputs.names)))
    if outputs.kind == "multiclass":
        labels = (rng.random((n, 1)) > np.cumsum(softmax(logits, axis=1), axis=1)).sum(axis=1, keepdims=True)
        return softmax(factor * logits, axis=1), labels.astype(float)
    return expit(factor * logits), (rng.random(logits.shape) < expit(logits)).astype(float)


@pytest.mark.parametrize("outputs", [BINARY, THREE, TWO_TARGETS], ids=lambda outputs: outputs.kind)
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_factor_is_found_and_undone(outputs, factor):
    scores, labels = over_confident(outputs, factor)
    temperature = fit_temperature(scores, labels, outputs)
    assert temperature == pytest.approx(factor, rel=0.06)
    calm = apply_temperature(scores, factor, outputs)
    assert np.allclose(calm, over_confident(outputs, 1.0)[0], atol=1e-3)  # scores nearer to 0 than 1e-12 are cut
    assert why_no_temperature(scores, labels, outputs) is None


def test_ranks_and_the_chosen_class_stay():
    scores, _ = over_confident(BINARY, 1.0, 50)
    assert (np.argsort(apply_temperature(scores, 2.5, BINARY)[:, 0]) == np.argsort(scores[:, 0])).all()
    scores, _ = over_confident(THREE, 1.0, 50)
    calm = apply_temperature(scores, 2.5, THREE)
    assert (calm.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert np.allclose(calm.sum(axis=1), 1)


def test_unknown_labels_and_rows_that_were_never_validated_change_nothing():
    scores, labels = over_confident(TWO_TARGETS, 2.0, 400)
    expected = fit_temperature(scores[:300], labels[:300], TWO_TARGETS)
    labels[300:] = np.nan
    scores[350:] = np.nan
    assert fit_temperature(scores, labels, TWO_TARGETS) == expected


@pytest.mark.parametrize(
    ("scores", "labels", "why"),
    [
        ([0.2, 0.7], [0, 1], "2 validation labels, fewer than 10"),
        ([0.2, 0.7] * 10, [1] * 20, "of one class"),
        ([0.2, 0.7] * 10, [0, 1] * 10, "on the right side"),
    ],
)
def test_where_it_cannot_be_fitted_it_is_one_and_says_why(scores, labels, why):
    scores, labels = np.array(scores)[:, None], np.array(labels, float)[:, None]
    assert fit_temperature(scores, labels, BINARY) == 1.0
    assert why in why_no_temperature(scores, labels, BINARY)
    assert apply_temperature(scores, 1.0, BINARY) is scores


def test_a_value_has_none():
    outputs = Outputs("regression", ("age",))
    assert fit_temperature(np.ones((20, 1)), np.ones((20, 1)), outputs) == 1.0
    assert why_no_temperature(np.ones((20, 1)), np.ones((20, 1)), outputs)
