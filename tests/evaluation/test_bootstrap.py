from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from medssl.evaluation import bootstrap
from medssl.evaluation.binary import METRICS, evaluate
from medssl.evaluation.bootstrap import patient_weights, resample
from medssl.evaluation.predictions import Block, Cell, TestSet, read_predictions


def _test_set(labels, patients, scores: dict[str, list], threshold: float = 0.5) -> TestSet:
    """One mode and budget; `scores` holds one array a draw for each arm."""
    draws = len(next(iter(scores.values())))
    cells = {Cell(arm, "full", "40", i): np.asarray(each[i]) for arm, each in scores.items() for i in range(draws)}
    return TestSet(
        labels=np.asarray(labels),
        patients=np.asarray(patients),
        arms=tuple(scores),
        blocks=(Block("full", "40", tuple(range(draws)), 40, 80),),
        scores=cells,
        thresholds=dict.fromkeys(cells, threshold),
    )


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
    key = ("in_domain", "full", "40")
    whole = resample(test, 100)
    monkeypatch.setattr(bootstrap, "CHUNK", 7 * len(test.labels))
    chunked = resample(test, 100)
    np.testing.assert_allclose(whole.replicates[key], chunked.replicates[key], rtol=0, atol=1e-14)
    assert whole.discarded == chunked.discarded


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    monkeypatch.setattr(bootstrap, "CHUNK", 1000)
    sizes = [weights.shape for weights in patient_weights(np.repeat(np.arange(50), 4), 23, np.random.default_rng(0))]
    assert sizes == [(5, 200)] * 4 + [(3, 200)]


def test_known_distribution_of_three_patients():
    # One positive and two negative patients, one draw. Enumerate all 27 equally likely resamples.
    labels, scores = np.array([1, 0, 0]), np.array([0.5, 0.1, 0.9])
    drawn = resample(_test_set(labels, [0, 1, 2], {"a": [scores]}), 20_000)
    expected, absent = [], 0
    for picks in itertools.product(range(3), repeat=3):
        chosen = list(picks)
        if len(set(labels[chosen])) < 2:
            absent += 1
        else:
            expected.append(evaluate(labels[chosen], scores[chosen], 0.5)["auroc"])
    got = drawn.replicates["a", "full", "40"][:, 0]
    assert drawn.discarded / 20_000 == pytest.approx(absent / 27, abs=0.02)
    assert drawn.used + drawn.discarded == 20_000
    for value in set(expected):
        assert np.mean(got == value) == pytest.approx(expected.count(value) / len(expected), abs=0.02)
    assert not np.isnan(got).any()


def test_the_value_is_the_mean_over_draws_on_the_whole_test_set(predictions):
    table = predictions(seeds=4)
    intervals = resample(read_predictions(table), 50).interval("in_domain", "full", "40")
    cells = [rows for _, rows in table[table.arm == "in_domain"].groupby("seed")]
    for metric in METRICS:
        each = [evaluate(rows.label.to_numpy(), rows.score.to_numpy(), 0.5)[metric] for rows in cells]
        assert intervals[metric].value == pytest.approx(np.mean(each), abs=1e-12)
        assert intervals[metric].lower <= intervals[metric].value <= intervals[metric].upper


def test_identical_arms_differ_by_exactly_nothing(predictions):
    table = predictions({"imagenet": 0.0})
    both = read_predictions(pd.concat([table, table.assign(arm="copy")]))
    for interval in resample(both, 200).paired_difference("copy", "imagenet", "full", "40").values():
        assert (interval.value, interval.lower, interval.upper) == (0.0, 0.0, 0.0)


def test_a_difference_is_paired_and_antisymmetric(predictions):
    drawn = resample(read_predictions(predictions({"imagenet": 0.0, "in_domain": 0.2}, seeds=1)), 500)
    there = drawn.paired_difference("in_domain", "imagenet", "full", "40")["auroc"]
    back = drawn.paired_difference("imagenet", "in_domain", "full", "40")["auroc"]
    assert (there.value, there.lower, there.upper) == pytest.approx((-back.value, -back.upper, -back.lower))
    # The arms see the same patients, so their difference varies far less than two separate test sets would make it.
    alone = [drawn.interval(arm, "full", "40")["auroc"] for arm in ("in_domain", "imagenet")]
    unpaired = math.hypot(*(interval.upper - interval.lower for interval in alone))
    assert there.upper - there.lower < 0.75 * unpaired


def test_one_draw_resamples_patients_alone():
    rng = np.random.default_rng(0)
    labels, scores = np.tile([0, 1], 40), rng.random(80)
    one = resample(_test_set(labels, np.arange(80), {"a": [scores]}), 200)
    three = resample(_test_set(labels, np.arange(80), {"a": [scores] * 3}), 200)
    # Draws that do not differ add nothing.
    np.testing.assert_allclose(one.replicates["a", "full", "40"], three.replicates["a", "full", "40"], atol=1e-14)


def test_draws_that_differ_widen_the_interval_by_their_standard_error():
    # 4,000 patients leave almost no noise of their own: what remains is the spread of the draws.
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 2000)
    draws = [labels * shift + rng.normal(size=4000) for shift in (0.4, 0.8, 1.2, 1.6, 2.0)]
    test = _test_set(labels, np.arange(4000), {"a": draws})
    drawn = resample(test, 1000)
    each = [evaluate(labels, scores, 0.5)["auroc"] for scores in draws]
    standard_error = np.std(each, ddof=1) / math.sqrt(5)
    assert drawn.replicates["a", "full", "40"][:, 0].std() == pytest.approx(standard_error, rel=0.1)


def test_the_seed_alone_decides(predictions):
    test = read_predictions(predictions())
    key = ("in_domain", "full", "40")
    first, again, other = (resample(test, 50, seed).replicates[key] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_complete_replicate_gives_unknown_intervals(predictions, monkeypatch):
    test = read_predictions(predictions())
    monkeypatch.setattr(bootstrap, "patient_weights", lambda *_: iter([np.where(test.labels == 1, 1.0, 0.0)[None]]))
    drawn = resample(test, 1)
    assert (drawn.used, drawn.discarded) == (0, 1)
    interval = drawn.interval("in_domain", "full", "40")["auroc"]
    assert interval.value > 0.5
    assert np.isnan([interval.lower, interval.upper]).all()


def test_bad_arguments_are_refused(predictions):
    test = read_predictions(predictions())
    with pytest.raises(ValueError, match="n_replicates"):
        resample(test, 0)
    with pytest.raises(ValueError, match="level"):
        resample(test, 10).interval("in_domain", "full", "40", level=95)


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
            interval = resample(_test_set(labels, clusters, {"a": [scores]}), 200).interval("a", "full", "40")["auroc"]
            covered[unit] += interval.lower <= truth <= interval.upper
    assert 0.88 <= covered["patients"] / studies <= 0.99
    assert covered["images"] / studies < 0.75


@pytest.mark.long
@pytest.mark.parametrize(("n_draws", "lowest"), bootstrap.COVERAGE.items())
def test_coverage_by_number_of_draws(n_draws, lowest):
    # The worst setting that COVERAGE reports: many patients, and a difference that varies by 0.05 between draws.
    assert _coverage(n_draws, n_patients=250, spread=0.2) == pytest.approx(lowest, abs=6)


@pytest.mark.long
@pytest.mark.parametrize("n_draws", bootstrap.COVERAGE)
def test_coverage_where_draws_do_not_differ(n_draws):
    assert _coverage(n_draws, n_patients=60, spread=0.0) >= 94


def _coverage(n_draws: int, n_patients: int, spread: float, studies: int = 250) -> float:
    """How many of 100 paired intervals hold the true AUROC difference of two arms, each drawn anew in every draw."""
    rng = np.random.default_rng(0)

    def expected(separation: float) -> float:
        return 0.5 * (1 + math.erf(separation / math.sqrt(2 * 1.25 + spread**2) / math.sqrt(2)))

    truth = expected(1.5) - expected(1.2)
    held = 0
    for study in range(studies):
        patients = np.repeat(np.arange(n_patients), rng.integers(1, 11, size=n_patients))
        labels = (rng.random(n_patients) < 0.4).astype(int)[patients]
        effects = rng.normal(size=n_patients)[patients]
        scores = {
            arm: [rng.normal(separation, spread) * labels + effects + 0.5 * rng.normal(size=len(labels)) for _ in range(n_draws)]
            for arm, separation in (("a", 1.2), ("b", 1.5))
        }
        drawn = resample(_test_set(labels, patients, scores), 250, study)
        interval = drawn.paired_difference("b", "a", "full", "40")["auroc"]
        held += interval.lower <= truth <= interval.upper
    return 100 * held / studies
