"""The replicates, the paired differences and the variance components behind every interval."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from medssl.evaluation import bootstrap
from medssl.evaluation.binary import evaluate
from medssl.evaluation.bootstrap import patient_weights, resample
from medssl.evaluation.predictions import Block, Cell, TestSet, read_predictions
from medssl.evaluation.variance import components, estimate, patient_df


def _test_set(labels, patients, scores: dict[str, list], threshold: float = 0.5) -> TestSet:
    """One mode and budget; `scores` holds for each arm one list a pretraining run, of one array a draw."""
    runs = {arm: each if isinstance(each[0], list) else [each] for arm, each in scores.items()}
    draws = len(next(iter(runs.values()))[0])
    cells = {
        Cell(arm, "full", "40", i, run): np.asarray(each[run][i])[:, None]
        for arm, each in runs.items()
        for run in range(len(each))
        for i in range(draws)
    }
    return TestSet(
        labels=np.asarray(labels, dtype=float)[:, None],
        patients=np.asarray(patients),
        arms=tuple(scores),
        blocks=(Block("full", "40", tuple(range(draws)), 40, 80),),
        scores=cells,
        thresholds=dict.fromkeys(cells, np.array([threshold])),
        runs={arm: tuple(range(len(each))) for arm, each in runs.items()},
    )


def _drawn(test: TestSet, n_replicates: int, seed: int = 0, **more):
    return next(resample(test, n_replicates, seed, **more))


def test_a_replicate_holds_as_many_patients_each_with_all_their_images():
    patients = np.repeat(np.arange(30), np.arange(30) % 4 + 1)
    weights = np.concatenate(list(patient_weights(patients, 500, np.random.default_rng(0))))
    assert weights.shape == (500, len(patients))
    first = np.flatnonzero(np.r_[True, np.diff(patients) > 0])
    np.testing.assert_array_equal(weights, weights[:, first][:, patients])  # images of a patient come together
    assert (weights[:, first].sum(axis=1) == 30).all()
    # Each patient is drawn once on average; the standard error of the mean of 500 draws is 0.044.
    assert abs(weights[:, first].mean(axis=0) - 1).max() < 0.2


def test_chunks_do_not_change_the_result(predictions, monkeypatch):
    test = read_predictions(predictions())
    whole = _drawn(test, 100, threads=1)
    monkeypatch.setattr(bootstrap, "CHUNK", 7 * len(test.labels))
    monkeypatch.setattr(bootstrap, "FEWEST_ROWS", 1)
    chunked = _drawn(test, 100, threads=3)
    np.testing.assert_allclose(whole.replicates["in_domain"], chunked.replicates["in_domain"], rtol=0, atol=1e-12)


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 1000)
    monkeypatch.setattr(bootstrap, "FEWEST_ROWS", 1)
    sizes = [weights.shape for weights in patient_weights(np.repeat(np.arange(50), 4), 23, np.random.default_rng(0))]
    assert sizes == [(5, 200)] * 4 + [(3, 200)]


def test_known_distribution_of_three_patients():
    # One positive and two negative patients, one draw. Enumerate all 27 equally likely resamples.
    labels, scores = np.array([1, 0, 0]), np.array([0.5, 0.1, 0.9])
    drawn = _drawn(_test_set(labels, [0, 1, 2], {"a": [scores]}), 20_000)
    expected, absent = [], 0
    for picks in itertools.product(range(3), repeat=3):
        chosen = list(picks)
        if len(set(labels[chosen])) < 2:
            absent += 1
        else:
            expected.append(evaluate(labels[chosen], scores[chosen], 0.5)["auroc"])
    got = drawn.replicates["a"][:, 0, 0, 0]
    assert np.isnan(got).mean() == pytest.approx(absent / 27, abs=0.02)
    assert drawn.used("auroc") == (~np.isnan(got)).sum()
    got = got[~np.isnan(got)]
    for value in set(expected):
        assert np.mean(got == value) == pytest.approx(expected.count(value) / len(expected), abs=0.02)


def test_the_value_is_the_mean_over_draws_on_the_whole_test_set(predictions):
    table = predictions(seeds=4)
    intervals = _drawn(read_predictions(table), 50).intervals("in_domain")
    cells = [rows for _, rows in table[table.arm == "in_domain"].groupby("seed")]
    for metric in ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity"):
        each = [evaluate(rows.label.to_numpy(), rows.score.to_numpy(), 0.5)[metric] for rows in cells]
        assert intervals[metric].value == pytest.approx(np.mean(each), abs=1e-12)
        assert intervals[metric].lower <= intervals[metric].value <= intervals[metric].upper


def test_identical_arms_differ_by_exactly_nothing(predictions):
    table = predictions({"imagenet": 0.0})
    both = read_predictions(pd.concat([table, table.assign(arm="copy")]))
    found = _drawn(both, 200).differences("copy", "imagenet")
    for name in ("auroc", "brier", "ece", "f1"):
        assert (found[name].value, found[name].lower, found[name].upper, found[name].p) == (0.0, 0.0, 0.0, 1.0)


def test_a_difference_is_paired_and_antisymmetric(predictions):
    drawn = _drawn(read_predictions(predictions({"imagenet": 0.0, "in_domain": 0.2}, seeds=1)), 500)
    there = drawn.differences("in_domain", "imagenet")["auroc"]
    back = drawn.differences("imagenet", "in_domain")["auroc"]
    assert (there.value, there.lower, there.upper, there.p) == pytest.approx((-back.value, -back.upper, -back.lower, back.p))
    # The arms see the same patients, so their difference varies far less than two separate test sets would make it.
    alone = [drawn.intervals(arm)["auroc"] for arm in ("in_domain", "imagenet")]
    unpaired = math.hypot(*(interval.upper - interval.lower for interval in alone))
    assert there.upper - there.lower < 0.75 * unpaired


def test_draws_and_runs_that_do_not_differ_add_nothing():
    rng = np.random.default_rng(0)
    labels, scores = np.tile([0, 1], 40), rng.random(80)
    one = _drawn(_test_set(labels, np.arange(80), {"a": [scores]}), 200)
    many = _drawn(_test_set(labels, np.arange(80), {"a": [[scores] * 3] * 2}), 200)
    np.testing.assert_allclose(one.together("auroc")["a"], many.together("auroc")["a"], atol=1e-14)
    first, second = one.intervals("a")["auroc"], many.intervals("a")["auroc"]
    assert (first.lower, first.upper) == (pytest.approx(second.lower), pytest.approx(second.upper))


def test_draws_that_differ_widen_the_interval_as_student_says():
    # 4,000 patients leave almost no noise of their own: what remains is the spread of the draws.
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 2000)
    draws = [labels * shift + rng.normal(size=4000) for shift in (0.4, 0.8, 1.2, 1.6, 2.0)]
    drawn = _drawn(_test_set(labels, np.arange(4000), {"a": draws}), 1000)
    each = [evaluate(labels, scores, 0.5)["auroc"] for scores in draws]
    standard_error = np.std(each, ddof=1) / math.sqrt(5)
    assert drawn.together("auroc")["a"].std() == pytest.approx(standard_error, rel=0.1)
    found = drawn.intervals("a")["auroc"]
    assert found.upper - found.value == pytest.approx(t.ppf(0.975, 4) * standard_error, rel=0.03)


def test_runs_are_each_arms_own_and_draws_are_shared():
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], 3000)
    shared = [rng.normal(size=6000) for _ in range(4)]  # a draw's own noise, the same for both arms: the difference is exact
    shift = (0.6, 1.0, 1.4)
    scores = {
        "a": [[labels * each + shared[i] for i in range(4)] for each in shift],
        "b": [[labels * 1.0 + shared[i] for i in range(4)]],
    }
    drawn = _drawn(_test_set(labels, np.arange(6000), scores), 500)
    found = drawn.differences("a", "b")["auroc"]
    runs = [np.mean([evaluate(labels, scores["a"][r][i], 0.5)["auroc"] for i in range(4)]) for r in range(3)]
    error = np.std(runs, ddof=1) / math.sqrt(3)
    assert found.upper - found.value == pytest.approx(t.ppf(0.975, 2) * error, rel=0.05)
    alone = drawn.differences("b", "a")["auroc"]
    assert alone.p == found.p
    assert 0.2 < found.p < 1


def test_components_are_unbiased():
    # Cells = draw (shared by the arms) + the arm's draw + its run + the rest; the variance of the mean difference is known.
    rng = np.random.default_rng(2)
    n, (runs, draws) = 4000, (3, 4)
    made = []
    shared = rng.normal(size=(n, 1, draws))
    for _ in range(2):
        own = 0.5 * rng.normal(size=(n, 1, draws)) + 0.7 * rng.normal(size=(n, runs, 1)) + 0.9 * rng.normal(size=(n, runs, draws))
        made.append((shared + own)[..., None])
    expected = 2 * (0.25 / draws + 0.49 / runs + 0.81 / (runs * draws))
    found = sum(components(made).values())
    assert found.mean() == pytest.approx(expected, rel=0.03)
    difference = (made[0] - made[1]).mean(axis=(1, 2))
    assert difference.var() == pytest.approx(expected, rel=0.06)


def test_differences_that_a_finite_test_set_makes_between_draws_are_not_counted_twice():
    # Every model is as good as every other and errs on its own: all differences between draws are those of the test set.
    rng = np.random.default_rng(3)
    labels = np.tile([0, 1], 100)
    ratios = []
    for study in range(60):
        drawn = _drawn(_test_set(labels, np.arange(200), {"a": [labels + rng.normal(size=200) for _ in range(5)]}), 200, study)
        found = estimate([drawn.values["a"]], [drawn.replicates["a"]], 100)
        ratios.append(found.variance[0] / found.of_patients[0])
        assert ratios[-1] >= 1
    assert np.mean(ratios) < 1.5  # adding them in full would make it 2


def test_degrees_of_freedom_of_patients_are_few_where_a_class_is_rare():
    assert patient_df(np.array([[50, 50]]), 100) == pytest.approx(98)
    assert patient_df(np.array([[5, 500]]), 505) == pytest.approx(4.08, abs=0.01)
    assert patient_df(np.array([[50, 50], [50, 50]]), 100) == pytest.approx(196)
    assert patient_df(np.zeros((0, 2)), 80) == 79
    assert patient_df(np.array([[1, 90]]), 91) == 1


def test_an_auroc_near_one_has_more_room_below_than_above():
    rng = np.random.default_rng(4)
    labels = np.tile([0, 1], 30)
    drawn = _drawn(_test_set(labels, np.arange(60), {"a": [3 * labels + rng.normal(size=60)]}), 1000)
    found = drawn.intervals("a")["auroc"]
    assert found.upper <= 1
    assert found.value - found.lower > 1.2 * (found.upper - found.value)


def test_the_seed_alone_decides(predictions):
    test = read_predictions(predictions())
    first, again, other = (_drawn(test, 50, seed).replicates["in_domain"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_complete_replicate_gives_unknown_intervals(predictions, monkeypatch):
    test = read_predictions(predictions())
    monkeypatch.setattr(bootstrap, "patient_weights", lambda *_: iter([np.where(test.labels[:, 0] == 1, 1.0, 0.0)[None]]))
    drawn = _drawn(test, 1)
    assert drawn.used("auroc") == 0
    interval = drawn.intervals("in_domain")["auroc"]
    assert interval.value > 0.5
    assert np.isnan([interval.lower, interval.upper]).all()


def test_bad_arguments_are_refused(predictions):
    test = read_predictions(predictions())
    with pytest.raises(ValueError, match="n_replicates"):
        _drawn(test, 0)
    with pytest.raises(ValueError, match="level"):
        _drawn(test, 10).intervals("in_domain", level=95)


def test_patients_cover_the_truth_where_images_do_not():
    # Up to 10 images a patient that share the patient's effect. The AUROC of the process is known in closed form:
    # scores are normal with equal variance, and a patient's size has nothing to do with the patient's effect.
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(1.2 / math.sqrt(2 * (1.0 + 0.25)) / math.sqrt(2)))
    covered = {"patients": 0, "images": 0}
    studies = 200
    for _ in range(studies):
        patients = np.repeat(np.arange(80), rng.integers(1, 11, size=80))
        labels = (rng.random(80) < 0.4).astype(int)[patients]
        scores = 1.2 * labels + rng.normal(size=80)[patients] + 0.5 * rng.normal(size=len(patients))
        for unit, clusters in (("patients", patients), ("images", np.arange(len(patients)))):
            interval = _drawn(_test_set(labels, clusters, {"a": [scores]}), 200).intervals("a")["auroc"]
            covered[unit] += interval.lower <= truth <= interval.upper
    assert 0.88 <= covered["patients"] / studies <= 0.99
    assert covered["images"] / studies < 0.75
