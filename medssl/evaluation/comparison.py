"""Every arm against a reference, with paired intervals, as one tidy table; every pair of arms; and what each row says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.errors import DataError
from medssl.evaluation.bootstrap import Difference, Drawn, Interval, resample
from medssl.evaluation.delong import delong
from medssl.evaluation.metrics import PRIMARY
from medssl.evaluation.pairs import only_cell, pairs_of
from medssl.evaluation.predictions import BINARY, TestSet, read_predictions
from medssl.evaluation.sentences import number, sentence
from medssl.evaluation.verdicts import FEWEST_OF_A_CLASS, SMALL_TEST, verdict
from medssl.task import Outputs

__all__ = ["COLUMNS", "FEWEST_OF_A_CLASS", "SMALL_TEST", "Comparison", "compare", "compare_all", "number", "sentence", "verdict"]

COLUMNS = {
    "arm": "the arm",
    "mode": "how it was trained, a name of medssl.modes",
    "budget": "label of the budget",
    "budget_patients": "labelled patients, validation included (mean over the draws, rounded)",
    "budget_images": "labelled images, validation included (mean over the draws, rounded)",
    "n_seeds": "label draws",
    "metric": "a name of medssl.evaluation.metrics; `auroc/<target>` is that of one target",
    "value": "mean over label draws and pretraining runs of the metric on the test set",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval",
    "reference": "the arm that it is compared with",
    "difference": "value minus the reference's, whichever way is better; empty for the reference itself",
    "difference_lower": "lower end of the paired interval",
    "difference_upper": "upper end of the paired interval",
    "level": "level of the intervals, such as 0.95",
    "replicates_used": "bootstrap replicates that held every class of the primary metric; the others are left out",
    "test_patients": "test patients",
    "test_images": "test images",
    "test_positives": "positive test images; empty for other than binary tasks",
    "test_patients_positive": "test patients with a positive image; empty for other than binary tasks",
    "test_patients_negative": "test patients with a negative image; empty for other than binary tasks",
    "test_patients_fewest": "test patients of the rarest class (of the rarest side of a target); regression, ordinal: test patients",
    "primary": "whether arms are called better or worse by this metric",
    "n_runs": "pretraining runs of the arm",
    "n_runs_reference": "pretraining runs of the reference",
    "p": "of no difference to the reference, two-sided; primary metric",
    "p_holm": "p corrected by Holm over all pairs of arms of the mode and budget; primary metric",
    "delong_lower": "DeLong's interval (logit; patients as clusters): binary AUROC of one draw and one run, else empty",
    "delong_upper": "its upper end",
}


@dataclass(frozen=True)
class Comparison:
    """`table` has the columns COLUMNS, `pairs` those of `pairs`; `together` holds, for (arm, mode, budget), the (R,) values of the
    primary metric with patients, draws and runs resampled together, and `paired_variance` for (arm, other, mode, budget) the
    variance of their difference over patients alone."""

    table: pd.DataFrame
    pairs: pd.DataFrame
    together: dict[tuple[str, str, str], np.ndarray]
    paired_variance: dict[tuple[str, str, str, str], float]


def compare(
    predictions: pd.DataFrame,
    reference: str = "imagenet",
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    outputs: Outputs = BINARY,
) -> pd.DataFrame:
    """One row per mode, budget, arm and metric: value, difference to `reference`, intervals. Columns: COLUMNS.

    `predictions` is described in `predictions.COLUMNS`. Rows come in the order of MODES, small budgets first, arms in
    the order of the table. Raises DataError when the predictions do not fit together or `reference` is none of
    their arms.
    """
    return compare_all(predictions, reference, replicates, seed, level, outputs).table


def compare_all(
    predictions: pd.DataFrame,
    reference: str = "imagenet",
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    outputs: Outputs = BINARY,
) -> Comparison:
    """`compare`, and every pair of arms beside it, from the same replicates."""
    test = read_predictions(predictions, outputs)
    if reference not in test.arms:
        raise DataError(f"comparison: the reference '{reference}' is none of the arms {', '.join(test.arms)}")
    shared, primary = _shared(test, level), PRIMARY[outputs.kind]
    rows, pairs, together, variances = [], [], {}, {}
    for drawn in resample(test, replicates, seed):
        block_pairs = pairs_of(test, drawn, shared["test_patients_fewest"], level)
        pairs.append(block_pairs)
        p_holm = {frozenset((row["a"], row["b"])): row["p_holm"] for row in block_pairs.to_dict("records")}
        mode, budget = drawn.block.mode, drawn.block.budget
        together |= {(arm, mode, budget): values for arm, values in drawn.together(primary).items()}
        used = drawn.used(primary)
        for arm in test.arms:
            intervals = drawn.intervals(arm, level)
            differences = drawn.differences(arm, reference, level) if arm != reference else {}
            for name in drawn.names:
                row = _row(test, drawn, arm, name, intervals[name], reference, differences.get(name))
                row |= shared | {"replicates_used": used, "primary": name == primary}
                if name == primary and arm != reference:
                    row |= {"p": differences[name].p, "p_holm": p_holm[frozenset((arm, reference))]}
                    variances[arm, reference, mode, budget] = differences[name].variance_of_patients
                if name == "auroc":
                    row |= _delong(test, drawn, arm, level)
                rows.append(row)
    every_pair = pd.concat(pairs, ignore_index=True) if len(test.arms) > 1 else pairs[0]
    return Comparison(pd.DataFrame(rows, columns=list(COLUMNS)), every_pair, together, variances)


def _shared(test: TestSet, level: float) -> dict:
    sizes, binary = test.class_sizes(), test.outputs.kind == "binary"
    by_class = test.outputs.kind in ("binary", "multiclass", "multilabel")
    return {
        "level": level,
        "test_patients": test.n_patients,
        "test_images": len(test.labels),
        "test_positives": int(test.labels.sum()) if binary else math.nan,
        "test_patients_positive": test.patients_with(1) if binary else math.nan,
        "test_patients_negative": test.patients_with(0) if binary else math.nan,
        "test_patients_fewest": int(sizes.min()) if by_class else test.n_patients,
    }


def _row(
    test: TestSet, drawn: Drawn, arm: str, name: str, value: Interval, reference: str, difference: Difference | None
) -> dict:
    block = drawn.block
    return {
        "arm": arm,
        "mode": block.mode,
        "budget": block.budget,
        "budget_patients": block.patients,
        "budget_images": block.images,
        "n_seeds": len(block.seeds),
        "n_runs": len(test.runs_of(arm)),
        "n_runs_reference": len(test.runs_of(reference)),
        "metric": name,
        "value": value.value,
        "lower": value.lower,
        "upper": value.upper,
        "reference": reference,
        "difference": difference.value if difference else math.nan,
        "difference_lower": difference.lower if difference else math.nan,
        "difference_upper": difference.upper if difference else math.nan,
        **dict.fromkeys(("p", "p_holm", "delong_lower", "delong_upper"), math.nan),
    }


def _delong(test: TestSet, drawn: Drawn, arm: str, level: float) -> dict:
    if test.outputs.kind != "binary" or len(drawn.block.seeds) > 1 or len(test.runs_of(arm)) > 1:
        return {}
    found = delong(test.labels[:, 0], test.scores[only_cell(test, drawn, arm)][:, 0], test.patients, level)
    return {"delong_lower": found.lower, "delong_upper": found.upper}
