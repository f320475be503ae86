"""Every arm against a reference, with paired intervals, as one tidy table; and what each row says, in plain words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from medssl.errors import DataError
from medssl.evaluation.binary import METRICS
from medssl.evaluation.bootstrap import Interval, resample
from medssl.evaluation.predictions import Block, read_predictions

COLUMNS = {
    "arm": "the arm",
    "mode": "linear | full",
    "budget": "label of the budget",
    "budget_patients": "labelled patients, validation included (mean over the draws, rounded)",
    "budget_images": "labelled images, validation included (mean over the draws, rounded)",
    "n_seeds": "label draws",
    "metric": "auroc | average_precision | balanced_accuracy | sensitivity | specificity",
    "value": "mean over the label draws of the metric on the test set, 0 .. 1",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval",
    "reference": "the arm that it is compared with",
    "difference": "value minus the reference's; empty for the reference itself",
    "difference_lower": "lower end of the paired interval",
    "difference_upper": "upper end of the paired interval",
    "level": "level of the intervals, such as 0.95",
    "replicates_used": "bootstrap replicates that held both classes; the others are left out",
    "test_patients": "test patients",
    "test_images": "test images",
    "test_positives": "positive test images",
    "test_patients_positive": "test patients with a positive image",
    "test_patients_negative": "test patients with a negative image",
}

SMALL_TEST = 100  # test patients; below it a caution is printed
# Test patients of each class; below it a percentile interval is too narrow to name a winner (with one patient of
# a class its width can even be 0).
FEWEST_OF_A_CLASS = 10
_SETTINGS = {"linear": "as a linear probe", "full": "after full fine-tuning"}


def compare(
    predictions: pd.DataFrame, reference: str = "imagenet", replicates: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """One row per mode, budget, arm and metric: value, difference to `reference`, intervals. Columns: COLUMNS.

    `predictions` is described in `predictions.COLUMNS`. Rows come linear before full, small budgets first, arms in
    the order of the table. Raises DataError when the predictions do not fit together or `reference` is none of
    their arms.
    """
    test = read_predictions(predictions)
    if reference not in test.arms:
        raise DataError(f"comparison: the reference '{reference}' is none of the arms {', '.join(test.arms)}")
    drawn = resample(test, replicates, seed)
    shared = {
        "level": level,
        "replicates_used": drawn.used,
        "test_patients": test.n_patients,
        "test_images": len(test.labels),
        "test_positives": int(test.labels.sum()),
        "test_patients_positive": test.patients_with(1),
        "test_patients_negative": test.patients_with(0),
    }
    rows = []
    for block in test.blocks:
        for arm in test.arms:
            intervals = drawn.interval(arm, block.mode, block.budget, level)
            differences = drawn.paired_difference(arm, reference, block.mode, block.budget, level)
            rows += [_row(arm, block, metric, intervals[metric], reference, differences[metric]) | shared for metric in METRICS]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(arm: str, block: Block, metric: str, value: Interval, reference: str, difference: Interval) -> dict:
    unknown = Interval(float("nan"), float("nan"), float("nan"))
    difference = unknown if arm == reference else difference
    return {
        "arm": arm,
        "mode": block.mode,
        "budget": block.budget,
        "budget_patients": block.patients,
        "budget_images": block.images,
        "n_seeds": len(block.seeds),
        "metric": metric,
        "value": value.value,
        "lower": value.lower,
        "upper": value.upper,
        "reference": reference,
        "difference": difference.value,
        "difference_lower": difference.lower,
        "difference_upper": difference.upper,
    }


def verdict(row: Mapping) -> str:
    """'reference', 'better', 'worse', 'unclear' (the interval holds 0) or 'too few' (test patients of a class)."""
    if row["arm"] == row["reference"]:
        return "reference"
    if min(row["test_patients_positive"], row["test_patients_negative"]) < FEWEST_OF_A_CLASS:
        return "too few"
    if row["difference_lower"] > 0:
        return "better"
    if row["difference_upper"] < 0:
        return "worse"
    return "unclear"


def sentence(row: Mapping, pretrained: Collection[str] = ()) -> str:
    """What one AUROC row of `compare` says, naming a better arm only where the paired interval does.

    `pretrained` names the arms whose encoder was pretrained by this study: a difference that involves one of them
    holds for this one pretraining run, because no interval here covers another run of it.
    """
    arm, reference, level = row["arm"], row["reference"], f"{row['level']:.0%}"
    setting = f"{_SETTINGS[row['mode']]} with {row['budget_patients']} labelled patients, validation included"
    low, high = number(row["difference_lower"]), number(row["difference_upper"])
    kind = verdict(row)
    if kind == "reference":
        low, high = number(row["lower"]), number(row["upper"])
        said = f"{arm}, the reference, reaches an AUROC of {number(row['value'])} ({level} interval {low} to {high})"
    elif kind == "too few":
        said = f"the test set is too small to compare {arm} with {reference}"
    elif kind == "unclear":
        said = (
            f"the data cannot tell {arm} and {reference} apart "
            f"(difference {number(row['difference'])} AUROC, {level} interval {low} to {high})"
        )
    else:
        gap = number(abs(row["difference"]))
        low, high = (low, high) if kind == "better" else (number(-row["difference_upper"]), number(-row["difference_lower"]))
        said = f"{arm} is {kind} than {reference} by {gap} AUROC ({level} interval {low} to {high})"
    involved = {arm} if kind == "reference" else {arm, reference}
    ones = ["this one pretraining run"] if involved & set(pretrained) else []
    ones += ["this one label draw"] if row["n_seeds"] == 1 else []
    holds = f", for {' and '.join(ones)}" if ones else ""
    return f"{said} {setting}{holds}.{_small(row)}"


def _small(row: Mapping) -> str:
    fewest = min(row["test_patients_positive"], row["test_patients_negative"])
    if fewest < FEWEST_OF_A_CLASS:
        name = "positive" if row["test_patients_positive"] == fewest else "negative"
        return (
            f" Caution: only {fewest} of {row['test_patients']} test patients have a {name} image; "
            f"below {FEWEST_OF_A_CLASS} no arm is called better."
        )
    if row["test_patients"] < SMALL_TEST:
        return f" Caution: only {row['test_patients']} test patients."
    return ""


def number(value: float) -> str:
    """Three decimals; more where three would print a value other than 0 as 0.000; '?' for unknown."""
    if value != value:
        return "?"
    for digits in (3, 4, 5):
        text = f"{value:.{digits}f}"
        if float(text) != 0 or value == 0:
            return text
    return "0.000"
