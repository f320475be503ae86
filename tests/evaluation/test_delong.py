"""DeLong: the paper's data as printed, a published library, the definition by placements, and clusters of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from medssl.evaluation.delong import covariances, delong, delong_test

# The example of DeLong, DeLong & Clarke-Pearson (1988), section 4: patients with ovarian cancer and an intestinal
# obstruction; albumin, total protein, K-G score and whether the operation failed (0) or not, 43 without missing values.
# Areas, standard errors and contrasts below are as printed for these data in the SAS/STAT User's Guide, "The LOGISTIC
# Procedure, Comparing Receiver Operating Characteristic Curves".
TABLE = """
    3.0 5.8 10 0; 3.2 6.3 5 1; 3.9 6.8 3 1; 2.8 4.8 6 0; 3.2 5.8 3 1; 0.9 4.0 5 0; 2.5 5.7 8 0; 1.6 5.6 5 1; 3.8 5.7 5 1;
    3.7 6.7 6 1; 3.2 5.4 4 1; 3.8 6.6 6 1; 4.1 6.6 5 1; 3.6 5.7 5 1; 4.3 7.0 4 1; 3.6 6.7 4 0; 2.3 4.4 6 1; 4.2 7.6 4 0;
    4.0 6.6 6 0; 3.5 5.8 6 1; 3.8 6.8 7 1; 3.0 4.7 8 0; 4.5 7.4 5 1; 3.7 7.4 5 1; 3.1 6.6 6 1; 4.1 8.2 6 1; 4.3 7.0 5 1;
    4.3 6.5 4 1; 3.2 5.1 5 1; 2.6 4.7 6 1; 3.3 6.8 6 0; 1.7 4.0 7 0; 3.7 6.1 5 1; 3.3 6.3 7 1; 4.2 7.7 6 1; 3.5 6.2 5 1;
    2.9 5.7 9 0; 2.1 4.8 7 1; 2.8 6.2 8 0; 4.0 7.0 7 1; 3.3 5.7 6 1; 3.7 6.9 5 1; 3.6 6.6 5 1
"""
PATIENTS = np.array([row.split() for row in TABLE.split(";")], dtype=float)
SUCCESS = PATIENTS[:, 3]
TESTS = {"albumin": PATIENTS[:, 0], "protein": PATIENTS[:, 1], "K-G": -PATIENTS[:, 2]}


@pytest.mark.parametrize(
    ("name", "area", "error"), [("albumin", 0.7366, 0.0927), ("K-G", 0.7258, 0.1028), ("protein", 0.6478, 0.1000)]
)
def test_the_example_of_the_paper_areas(name, area, error):
    found = delong(SUCCESS, TESTS[name], scale="plain")
    assert (round(found.value, 4), round(found.variance**0.5, 4)) == (area, error)


@pytest.mark.parametrize(
    ("name", "difference", "error", "p"), [("albumin", 0.0108, 0.0953, 0.9102), ("protein", -0.0780, 0.1046, 0.4561)]
)
def test_the_example_of_the_paper_contrasts(name, difference, error, p):
    found = delong_test(SUCCESS, TESTS[name], TESTS["K-G"])
    assert (round(found.difference, 4), round(found.variance**0.5, 4), round(found.p, 4)) == (difference, error, p)


@pytest.mark.parametrize("seed", range(6))
def test_variance_and_p_are_those_of_a_published_library(seed):
    published = pytest.importorskip("MLstatkit")
    rng = np.random.default_rng(seed)
    labels = (rng.random(150) < 0.3).astype(int)
    first = labels + rng.normal(size=150)
    second = (first + rng.normal(size=150)).round(seed % 3)  # with many ties, with few, with none to speak of
    z, p, _, _, area, other, info = published.Delong_test(labels, first, second)
    found = delong_test(labels, second, first)
    assert info["method"] == "delong"
    assert found.variance == pytest.approx(info["var_diff"], abs=1e-8, rel=1e-8)
    assert found.p == pytest.approx(p, abs=1e-8)
    assert found.difference / found.variance**0.5 == pytest.approx(z, abs=1e-8)
    assert (found.difference, delong(labels, first).value) == (
        pytest.approx(other - area, abs=1e-12),
        pytest.approx(area, abs=1e-12),
    )


def _by_definition(labels, scores):
    """Areas and covariance by counting every pair, as in equations 3 to 6 of the paper."""
    up, down = scores[:, labels == 1], scores[:, labels == 0]
    wins = (up[:, :, None] > down[:, None, :]) + 0.5 * (up[:, :, None] == down[:, None, :])
    return wins.mean(axis=(1, 2)), np.cov(wins.mean(axis=2)) / up.shape[1] + np.cov(wins.mean(axis=1)) / down.shape[1]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=30).filter(
        lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
    )
)
def test_equals_the_definition_by_placements(rows):
    labels, first, second = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    scores = np.stack([first, second])
    areas, covariance = covariances(labels, scores)
    expected_areas, expected = _by_definition(labels, scores)
    np.testing.assert_allclose(areas, expected_areas, rtol=0, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-12)
    assert areas[0] == pytest.approx(roc_auc_score(labels, first))


def test_one_image_a_patient_is_delong_exactly():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 80), rng.normal(size=(2, 80))
    _, plain = covariances(labels, scores)
    _, clustered = covariances(labels, scores, rng.permutation(80))
    np.testing.assert_array_equal(plain, clustered)


def test_patients_with_several_images_by_the_formulas_of_obuchowski():
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(40), rng.integers(1, 5, 40))
    labels = rng.integers(0, 2, len(patients))  # patients with both classes among them
    scores = np.stack([labels + rng.normal(size=40)[patients], rng.normal(size=len(patients)).round(1)])
    areas, covariance = covariances(labels, scores, patients)
    up, down = scores[:, labels == 1], scores[:, labels == 0]
    wins = (up[:, :, None] > down[:, None, :]) + 0.5 * (up[:, :, None] == down[:, None, :])
    x, y, (m, n) = wins.mean(axis=2), wins.mean(axis=1), wins.shape[1:]
    of_x, of_y = patients[labels == 1], patients[labels == 0]
    a, b, everyone = len(set(of_x)), len(set(of_y)), len(set(patients))
    expected = np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            s10 = s01 = s11 = s11_turned = 0.0
            for patient in range(40):
                dx = [x[k][of_x == patient].sum() - (of_x == patient).sum() * areas[k] for k in (r, s)]
                dy = [y[k][of_y == patient].sum() - (of_y == patient).sum() * areas[k] for k in (r, s)]
                s10, s01 = s10 + dx[0] * dx[1], s01 + dy[0] * dy[1]
                s11, s11_turned = s11 + dx[0] * dy[1], s11_turned + dx[1] * dy[0]
            first = a / ((a - 1) * m) * s10 / m + b / ((b - 1) * n) * s01 / n
            expected[r, s] = first + everyone / (everyone - 1) * (s11 + s11_turned) / (m * n)
    np.testing.assert_allclose(covariance, expected, rtol=1e-10)


def test_copies_of_an_image_add_nothing():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 60)
    scores = labels + rng.normal(size=60)
    alone = delong(labels, scores)
    copied = delong(labels.repeat(5), scores.repeat(5), np.arange(60).repeat(5))
    assert copied.value == pytest.approx(alone.value)
    assert copied.variance == pytest.approx(alone.variance, rel=1e-9)
    assert delong(labels.repeat(5), scores.repeat(5)).variance < alone.variance / 4


def test_intervals_on_both_scales():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    scores = 2.5 * labels + rng.normal(size=60)
    plain, mapped = (delong(labels, scores, scale=scale) for scale in ("plain", "logit"))
    half = norm.ppf(0.975) * plain.variance**0.5
    assert (plain.lower, plain.upper) == (pytest.approx(plain.value - half), pytest.approx(min(1.0, plain.value + half)))
    assert 0 < mapped.lower < mapped.value < mapped.upper < 1
    odds = [v / (1 - v) for v in (mapped.lower, mapped.value, mapped.upper)]
    assert odds[1] / odds[0] == pytest.approx(odds[2] / odds[1])  # symmetric on the logit scale
    with pytest.raises(ValueError, match="scale"):
        delong(labels, scores, scale="log")


def test_what_is_unknown_is_nan():
    assert np.isnan(delong([1, 1], [0.1, 0.2]).value)
    single = delong([1, 0, 0], [0.9, 0.1, 0.95])
    assert (single.value, np.isnan(single.variance)) == (0.5, True)
    perfect = delong([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert (perfect.value, perfect.variance) == (1.0, 0.0)
    assert np.isnan([perfect.lower, perfect.upper]).all()
    one_patient = delong([1, 1, 0, 0], [0.9, 0.3, 0.5, 0.1], [0, 0, 1, 2])
    assert np.isnan(one_patient.variance)


def test_models_that_order_the_images_alike_do_not_differ():
    rng = np.random.default_rng(4)
    labels, scores = rng.integers(0, 2, 50), rng.normal(size=50)
    found = delong_test(labels, scores, np.exp(scores))
    assert (found.difference, found.lower, found.upper, found.p) == (0.0, 0.0, 0.0, 1.0)
