"""When an arm may be called better than another."""

from __future__ import annotations

import math
from collections.abc import Mapping

from medssl.evaluation.metrics import is_better

SMALL_TEST = 100  # test patients; below it a caution is printed
# Test patients of each class; below it an interval is too uncertain to name a winner (with one patient of a class its width can
# even be 0).
FEWEST_OF_A_CLASS = 10


def verdict(row: Mapping) -> str:
    """'reference', 'better', 'worse', 'unclear' (not told apart) or 'too few' (test patients).

    An arm is better or worse only if its paired interval leaves out 0 and, on the primary metric, p_holm < 1 - level: corrected
    for all pairs of arms of the mode and budget.
    """
    if row["arm"] == row["reference"]:
        return "reference"
    if fewest_of(row) < FEWEST_OF_A_CLASS:
        return "too few"
    return called(row, "difference_lower", "difference_upper", row["level"])


def fewest_of(row: Mapping) -> float:
    """Test patients of the rarest class of a row of the comparison."""
    if "test_patients_fewest" in row:
        return row["test_patients_fewest"]
    return min(row["test_patients_positive"], row["test_patients_negative"])


def called(row: Mapping, lower: str, upper: str, level: float) -> str:
    """'better', 'worse' or 'unclear' for a row with a `metric`, an interval and, where several arms are compared, a `p_holm`."""
    p = row.get("p_holm", math.nan)
    # `not p < ...` would hold for an unknown p, which stands for a single comparison without correction.
    if (not math.isnan(p) and p >= 1 - level) or not (row[lower] > 0 or row[upper] < 0):
        return "unclear"
    return "better" if is_better(row["metric"], 1.0 if row[lower] > 0 else -1.0) else "worse"
