from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from medssl.evaluation.embedding import FEWEST_IMAGES, pca, subsample, told_apart


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
def test_components_equal_scikit_learns_up_to_a_sign(shape):
    features = np.random.default_rng(0).normal(size=shape) * np.linspace(3, 1, shape[1]) + 5
    placed, explained = pca(features)
    oracle = PCA(2, svd_solver="full").fit(features)
    np.testing.assert_allclose(np.abs(placed), np.abs(oracle.transform(features)), atol=1e-8)
    np.testing.assert_allclose(explained, oracle.explained_variance_ratio_, atol=1e-10)


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
def test_the_sign_does_not_depend_on_the_order_of_the_images(shape):
    rng = np.random.default_rng(1)
    features, order = rng.normal(size=shape), rng.permutation(shape[0])
    np.testing.assert_allclose(pca(features[order])[0], pca(features)[0][order], atol=1e-8)


def test_features_that_do_not_vary_explain_nothing():
    placed, explained = pca(np.ones((5, 4)))
    assert not placed.any()
    assert explained.tolist() == [0, 0]


@pytest.mark.parametrize("features", [np.ones((1, 5)), np.ones((5, 1)), np.ones(5), np.full((4, 4), np.nan)])
def test_what_has_no_components_is_refused(features):
    with pytest.raises(ValueError, match="features"):
        pca(features)


def test_a_subsample_keeps_the_shares_of_the_groups():
    groups = np.array(["a"] * 9000 + ["b"] * 900 + ["c"] * 100)
    chosen = subsample(groups, 2000)
    assert len(chosen) == len(set(chosen.tolist())) == 2000
    assert (np.diff(chosen) > 0).all()
    names, counts = np.unique(groups[chosen], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"a": 1800, "b": 180, "c": 20}
    assert subsample(groups, 2000).tolist() == chosen.tolist()
    assert subsample(groups, 2000, seed=1).tolist() != chosen.tolist()
    assert subsample(groups[:5], 10).tolist() == [0, 1, 2, 3, 4]


def _vendors(distance: float, count: int = 300):
    rng = np.random.default_rng(2)
    vendor = rng.integers(0, 3, count)
    features = rng.normal(size=(count, 6))
    features[np.arange(count), vendor] += distance
    return features, np.array(["GE", "Philips", "Siemens"])[vendor], np.array([f"p{i}" for i in range(count)])


def test_a_vendor_that_is_in_the_features_is_told_and_one_that_is_not_is_guessed():
    apart, mixed = told_apart(*_vendors(6.0)), told_apart(*_vendors(0.0))
    assert apart.balanced_accuracy > 0.97
    assert abs(mixed.balanced_accuracy - 1 / 3) < 0.1
    assert apart.chance == pytest.approx(1 / 3)
    assert sum(apart.sizes.values()) == 300


def test_images_of_a_patient_never_stand_on_both_sides():
    # Twenty images of each patient are alike, and the vendor is drawn at random: images would be told by their patient.
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(40), 20)
    features = np.repeat(rng.normal(size=(40, 30)) * 5, 20, axis=0) + rng.normal(size=(800, 30)) * 0.1
    vendor = np.array(["a", "b"])[np.repeat(rng.permutation(np.arange(40) % 2), 20)]
    assert told_apart(features, vendor, np.arange(800)).balanced_accuracy > 0.9  # as if each image were a patient
    assert told_apart(features, vendor, patients).balanced_accuracy < 0.75


def test_small_and_unknown_groups_are_left_out_and_counted():
    features, vendors, patients = _vendors(3.0)
    names = vendors.astype(object)
    names[:10] = None
    names[10:15] = "Canon"
    found = told_apart(features, names, patients)
    assert set(found.sizes) == {"GE", "Philips", "Siemens"}
    assert found.left_out == 15
    few = np.where(np.arange(300) < FEWEST_IMAGES - 1, "Canon", "GE")
    assert told_apart(features, few, patients) is None
    one_patient = np.where(np.arange(300) < 30, "Canon", "GE")
    assert told_apart(features, one_patient, np.where(np.arange(300) < 30, "p", patients)) is None
