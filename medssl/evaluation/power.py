"""How many test patients it takes to tell two arms apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import norm

from medssl.evaluation.comparison import Comparison

COLUMNS = {
    "arm": "the arm",
    "reference": "the arm that it is compared with",
    "mode": "how both were trained",
    "budget": "label of the budget",
    "metric": "the primary metric of the task",
    "difference": "true difference that is to be found",
    "patients": "test patients that find it with the power asked for",
}
DIFFERENCES = (0.01, 0.02, 0.05)


def patients_needed(variance: float, patients: int, difference: float, power: float = 0.8, level: float = 0.95) -> float:
    """Test patients with which a paired interval of `level` leaves out 0 in a share `power` of studies; NaN if unknown.

    `variance` of the paired difference was observed on `patients` test patients; it is taken to fall as 1 / patients, with as many
    images a patient and classes as frequent as here. Then n = patients * variance * ((z_level + z_power) / difference)^2. What label
    draws and pretraining runs add does not fall with more patients and is left out: with few of them no number of patients may do.
    """
    if difference <= 0 or not 0 < power < 1 or not 0 < level < 1:
        raise ValueError(f"difference must be above 0, power and level between 0 and 1: {difference}, {power}, {level}")
    if not np.isfinite(variance):
        return math.nan
    z = norm.ppf((1 + level) / 2) + norm.ppf(power)
    return float(max(2, math.ceil(patients * variance * (z / difference) ** 2)))


def power_table(comparison: Comparison, differences: tuple[float, ...] = DIFFERENCES, power: float = 0.8) -> pd.DataFrame:
    """`patients_needed` for every arm against the reference, mode and budget; columns COLUMNS.

    Two arms that score alike have a variance of 0 and need no patients to be told apart; they are listed with the fewest, 2.
    """
    rows, table = [], comparison.table
    patients, level = int(table["test_patients"].iloc[0]), float(table["level"].iloc[0])
    name = table.loc[table["primary"].to_numpy(dtype=bool), "metric"].iloc[0]
    for (arm, reference, mode, budget), variance in comparison.paired_variance.items():
        for difference in differences:
            needed = patients_needed(variance, patients, difference, power, level)
            rows.append((arm, reference, mode, budget, name, difference, needed))
    return pd.DataFrame(rows, columns=list(COLUMNS))
