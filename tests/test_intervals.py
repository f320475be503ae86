"""How often something is done."""

from __future__ import annotations

import pytest

from medssl.intervals import Interval, interval_of


@pytest.mark.parametrize(("text", "expected"), [("10min", 600), ("90s", 90), ("2h", 7200), ("2 h", 7200)])
def test_checkpoints_after_a_time(text, expected):
    assert interval_of(text) == Interval(seconds=expected)


def test_checkpoints_after_steps_and_epochs():
    assert interval_of("500 steps") == Interval(steps=500)
    assert interval_of("1 epoch") == Interval(epochs=1)
    for wrong in ("often", "0 steps", "10", "-1 s"):
        with pytest.raises(ValueError, match="allowed: 90s, 10min, 2h, 500 steps, 1 epoch"):
            interval_of(wrong)
