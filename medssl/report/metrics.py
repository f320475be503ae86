"""What the report knows of a metric by its name: how it is called, which way is better, where chance and its ends are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

PRIMARY = {"binary": "auroc", "multiclass": "auroc", "multilabel": "auroc", "ordinal": "quadratic_kappa", "regression": "mae"}
"""Kind of task -> the metric that arms are compared on."""
FAMILIES = {
    "ranking": "how well images are put in order, whatever the threshold",
    "decision": "decisions at the threshold chosen inside the budget, or for the most probable class",
    "calibration": "whether scores can be read as probabilities",
    "error": "distance from the true value, in its unit",
    "other": "further metrics",
}
"""Family -> what its metrics tell; one table each, in this order."""


@dataclass(frozen=True)
class Metric:
    """A metric of the comparison's table.

    Attributes:
        name: as in the table: `auroc`, or `auroc.<output>` for one output of several.
        title: for headings and sentences.
        short: for the screen, up to 6 letters without an output.
        family: one of FAMILIES.
        lower_is_better: errors and miscalibration.
        chance: what guessing reaches, where that is the same for every data set.
        high: the best value that can be reached, where there is one; axes end there.
    """

    name: str
    title: str
    short: str
    family: str
    lower_is_better: bool = False
    chance: float | None = None
    high: float | None = 1.0


def _low(name: str, title: str, short: str, family: str) -> Metric:
    return Metric(name, title, short, family, lower_is_better=True, high=None)


_KNOWN = {
    metric.name: metric
    for metric in (
        Metric("auroc", "AUROC", "AUROC", "ranking", chance=0.5),
        Metric("average_precision", "average precision", "AP", "ranking"),
        Metric("c_index", "concordance", "C", "ranking", chance=0.5),
        Metric("spearman", "rank correlation", "rho", "ranking", chance=0.0),
        Metric("quadratic_kappa", "quadratic kappa", "QWK", "decision", chance=0.0),
        Metric("balanced_accuracy", "balanced accuracy", "BAcc", "decision"),
        Metric("accuracy", "accuracy", "Acc", "decision"),
        Metric("sensitivity", "sensitivity", "Sens", "decision"),
        Metric("specificity", "specificity", "Spec", "decision"),
        Metric("ppv", "positive predictive value", "PPV", "decision"),
        Metric("npv", "negative predictive value", "NPV", "decision"),
        Metric("f1", "F1", "F1", "decision"),
        Metric("mcc", "Matthews correlation", "MCC", "decision", chance=0.0),
        _low("ece", "calibration error (ECE)", "ECE", "calibration"),
        _low("ece_scaled", "calibration error after temperature", "ECE-T", "calibration"),
        _low("brier", "Brier score", "Brier", "calibration"),
        _low("brier_scaled", "Brier score after temperature", "Bri-T", "calibration"),
        _low("log_loss", "log loss", "LogL", "calibration"),
        _low("log_loss_scaled", "log loss after temperature", "LogL-T", "calibration"),
        _low("mae", "mean absolute error", "MAE", "error"),
        _low("rmse", "root mean squared error", "RMSE", "error"),
        Metric("r2", "explained variance (R²)", "R2", "error", chance=0.0),
        Metric("pearson", "correlation", "r", "error", chance=0.0),
    )
}


def metric_of(name: str) -> Metric:
    """What is known of a metric; one that is not known is shown by its name, higher taken as better."""
    if name in _KNOWN:
        return _KNOWN[name]
    base, _, output = name.partition(".")
    if output and base in _KNOWN:
        known = _KNOWN[base]
        return replace(known, name=name, title=f"{known.title}, {output}", short=f"{known.short} {output}")
    return Metric(name, name.replace("_", " "), name, "other", high=None)


def primary_of(comparison: pd.DataFrame) -> str:
    """The metric that arms are compared on: the first of the table, which is where `evaluation.comparison` puts it.

    Raises:
        ValueError: the table has no row.
    """
    if comparison.empty:
        raise ValueError("a comparison without rows has no metric")
    return str(comparison["metric"].iloc[0])


def metrics_of(comparison: pd.DataFrame) -> list[Metric]:
    """The metrics of a table in its order, those of single outputs last."""
    found = [metric_of(name) for name in dict.fromkeys(comparison["metric"])]
    return [metric for metric in found if "." not in metric.name] + [metric for metric in found if "." in metric.name]


def of_family(comparison: pd.DataFrame, family: str) -> list[Metric]:
    """The metrics of one family in the table's order, single outputs' left out."""
    return [metric for metric in metrics_of(comparison) if metric.family == family and "." not in metric.name]
