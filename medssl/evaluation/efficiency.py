"""Label efficiency: how many labelled patients the reference needs to match another arm at its smallest budget."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from medssl.evaluation.answer import primary
from medssl.evaluation.comparison import Comparison
from medssl.evaluation.metrics import metric

COLUMNS = {
    "arm": "the arm that is to be matched",
    "reference": "the arm that is given more labels",
    "mode": "how both were trained",
    "metric": "the primary metric of the task",
    "patients": "labelled patients of the arm, its smallest budget",
    "value": "what the arm reaches with them",
    "needed": "labelled patients with which the reference reaches it; inf: with none of the budgets",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval; inf: not reached",
    "found": "reached | at most (the smallest budget already does it) | not reached",
}


def label_efficiency(comparison: Comparison, level: float = 0.95) -> pd.DataFrame:
    """One row a mode and arm but the reference, columns COLUMNS; modes with one budget have none.

    The reference's curve is interpolated linearly between its budgets on the logarithm of patients; the first crossing counts.
    It is not extended beyond its budgets. The interval is that of percentiles over the replicates in which patients, draws and
    runs are resampled together, each with its own crossing; with few draws it is too narrow, as all percentiles are.
    """
    rows = []
    for mode, block in primary(comparison.table).groupby("mode", sort=False):
        reference, name = block["reference"].iloc[0], block["metric"].iloc[0]
        sign = 1.0 if metric(name).higher_is_better else -1.0
        budgets = block.drop_duplicates("budget").sort_values("budget_patients", kind="stable")
        sizes, names = budgets["budget_patients"].to_numpy(dtype=float), list(budgets["budget"])
        if len(np.unique(sizes)) < 2:
            continue
        of_reference = block[block["arm"] == reference].set_index("budget").loc[names, "value"].to_numpy(dtype=float)
        curves = np.stack([comparison.together[reference, mode, budget] for budget in names], axis=1)
        for arm in dict.fromkeys(block["arm"]):
            if arm == reference:
                continue
            value = float(block[(block["arm"] == arm) & (block["budget"] == names[0])]["value"].iloc[0])
            needed = crossing(sizes, sign * of_reference[None], np.array([sign * value]))[0]
            each = crossing(sizes, sign * curves, sign * comparison.together[arm, mode, names[0]])
            each = each[~np.isnan(each)]
            # No interpolation between replicates: one of the two may be infinite.
            ends = [(1 - level) / 2, (1 + level) / 2]
            lower, upper = np.quantile(each, ends, method="inverted_cdf") if len(each) else (math.nan, math.nan)
            found = "not reached" if math.isinf(needed) else "at most" if needed <= sizes[0] else "reached"
            found = "unknown" if math.isnan(needed) else found
            rows.append((arm, reference, mode, name, int(sizes[0]), value, needed, float(lower), float(upper), found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def crossing(sizes: np.ndarray, curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(R,) size at which each curve first reaches its target, interpolated on log size.

    `sizes` (B,) rising, `curves` (R, B) with more being better, `targets` (R,). The first size where the curve begins at or above
    the target; inf where it never gets there; NaN where a value is unknown.
    """
    reached = curves >= targets[:, None]
    first = reached.argmax(axis=1)
    rows, before = np.arange(len(curves)), np.maximum(first - 1, 0)
    low, high = curves[rows, before], curves[rows, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(first > 0, (targets - low) / (high - low), 0.0)
    logs = np.log(sizes)
    result = np.exp(logs[before] + share * (logs[first] - logs[before]))
    result = np.where(reached.any(axis=1), result, np.inf)
    return np.where(np.isnan(targets) | np.isnan(curves).any(axis=1), np.nan, result)


def efficiency_sentence(row: dict) -> str:
    """What one row of `label_efficiency` says."""
    arm, reference, patients = row["arm"], row["reference"], row["patients"]
    start = f"What {arm} reaches with {patients} labelled patients, {reference}"
    if row["found"] == "unknown":
        return f"How many labels {reference} needs to match {arm} is unknown."
    if row["found"] == "not reached":
        return f"{start} does not reach with any of the budgets."
    if row["found"] == "at most":
        return f"{start} reaches with as many or fewer."
    upper = "not reached" if math.isinf(row["upper"]) else f"{row['upper']:.0f}"
    return f"{start} reaches with about {row['needed']:.0f} (95% interval {row['lower']:.0f} to {upper})."
