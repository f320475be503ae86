from __future__ import annotations

import numpy as np

from medssl.evaluation.holm import holm


def test_the_worked_example():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; the last may not fall below the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_one_comparison_needs_no_correction_and_unknown_ones_do_not_count():
    np.testing.assert_allclose(holm([0.04]), [0.04])
    np.testing.assert_allclose(holm([np.nan, 0.04, 0.9]), [np.nan, 0.08, 0.9])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


def test_the_chance_of_any_false_name_stays_below_the_level():
    rng = np.random.default_rng(0)
    false = [(holm(rng.random(6)) < 0.05).any() for _ in range(4000)]
    assert 0.035 < np.mean(false) < 0.06
