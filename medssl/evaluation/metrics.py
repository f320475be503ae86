"""The metrics by name: what each is called in a sentence, which way is better, and the range it cannot leave."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """`title` stands in a sentence; `low` .. `high` is the range; `unit` says that the value has the label's unit."""

    title: str
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    unit: bool = False


METRICS = {
    "auroc": Metric("AUROC"),
    "average_precision": Metric("average precision"),
    "balanced_accuracy": Metric("balanced accuracy"),
    "sensitivity": Metric("sensitivity"),
    "specificity": Metric("specificity"),
    "ppv": Metric("positive predictive value"),
    "npv": Metric("negative predictive value"),
    "f1": Metric("F1"),
    "mcc": Metric("Matthews correlation", low=-1.0),
    "accuracy": Metric("accuracy"),
    "accuracy_at_half": Metric("accuracy at 0.5"),
    "brier": Metric("Brier score", higher_is_better=False, high=2.0),
    "brier_scaled": Metric("Brier score after temperature scaling", higher_is_better=False, high=2.0),
    "ece": Metric("calibration error", higher_is_better=False),
    "ece_scaled": Metric("calibration error after temperature scaling", higher_is_better=False),
    "quadratic_kappa": Metric("quadratic kappa", low=-1.0),
    "mae": Metric("mean absolute error", higher_is_better=False, high=math.inf, unit=True),
    "rmse": Metric("root mean squared error", higher_is_better=False, high=math.inf, unit=True),
    "r2": Metric("R²", low=-math.inf),
    "pearson": Metric("Pearson correlation", low=-1.0),
}
"""Metric -> what it is. `auroc/<target>` is the `auroc` of one target of several; see `metric`."""

PRIMARY = {
    "binary": "auroc",
    "multiclass": "auroc",
    "multilabel": "auroc",
    "ordinal": "quadratic_kappa",
    "regression": "mae",
}
"""Kind of task -> the metric on which arms are called better or worse."""


def metric(name: str) -> Metric:
    """The entry of METRICS; a metric of one target (`auroc/Effusion`) is like that of all.

    Raises KeyError for a name that is none.
    """
    return METRICS[name.split("/", 1)[0]]


def title(name: str) -> str:
    """'AUROC', or 'AUROC of Effusion' for the metric of one target."""
    kind, _, target = name.partition("/")
    return f"{METRICS[kind].title} of {target}" if target else METRICS[kind].title


def is_better(name: str, difference: float) -> bool:
    """Whether a difference, arm minus reference, is in the arm's favour. A difference of 0 or of unknown size is not."""
    return difference > 0 if metric(name).higher_is_better else difference < 0
