from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from medssl.errors import DataError
from medssl.evaluation.operating_point import choose_threshold


def test_midpoint_of_separable_scores():
    assert choose_threshold([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9]) == 0.5


def test_of_equally_good_thresholds_the_lowest_is_taken():
    # Above 0.8: sensitivity 1/2, specificity 1. Above 0.2: sensitivity 1, specificity 1/2.
    assert choose_threshold([0, 1, 0, 1], [0.1, 0.3, 0.7, 0.9]) == pytest.approx(0.2)


def test_useless_scores_call_everything_positive():
    assert choose_threshold([0, 1, 0], [0.4, 0.4, 0.4]) == 0.4
    assert choose_threshold([1, 0], [0.1, 0.9]) == 0.1


def test_neighbouring_floats_are_separated():
    low = 1.0
    high = np.nextafter(low, 2)
    threshold = choose_threshold([0, 1], [low, high])
    assert low < threshold <= high


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9).map(lambda i: i / 10)), min_size=2, max_size=30).filter(
        lambda rows: len({y for y, _ in rows}) == 2
    ),
    st.randoms(use_true_random=False),
)
def test_no_threshold_is_better_and_the_order_of_images_does_not_matter(rows, random):
    labels, scores = map(np.array, zip(*rows, strict=True))
    threshold = choose_threshold(labels, scores)
    best = max(balanced_accuracy_score(labels, scores >= t) for t in [*scores, 2.0])
    assert balanced_accuracy_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-12)
    random.shuffle(rows)
    assert choose_threshold(*map(np.array, zip(*rows, strict=True))) == threshold


@pytest.mark.parametrize(("labels", "absent"), [([1, 1], "negative"), ([0, 0], "positive")])
def test_an_absent_class_is_an_error(labels, absent):
    with pytest.raises(DataError, match=f"2 validation images is {absent}"):
        choose_threshold(labels, [0.1, 0.2])
