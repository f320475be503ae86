"""How a metric is shown: its title, which way is better, the table it stands in, where chance is and where its axis ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from medssl.evaluation import metrics as known

FAMILIES = {
    "ranking": "how well images are put in order, whatever the threshold",
    "decision": "decisions, at the threshold chosen inside the budget or for the most probable class",
    "calibration": "whether scores can be read as probabilities",
    "error": "how far the predicted values are from the true ones",
    "other": "further metrics",
}
"""Family -> what its metrics tell; one table each, in this order."""
_MEMBERS = {
    "ranking": ("auroc", "average_precision"),
    "calibration": ("brier", "brier_scaled", "ece", "ece_scaled"),
    "error": ("mae", "rmse", "r2", "pearson"),
    "decision": ("balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "accuracy", "accuracy_at_half",
                 "quadratic_kappa"),
}  # fmt: skip
_SHORT = {
    "auroc": "AUROC", "average_precision": "AP", "balanced_accuracy": "BAcc", "sensitivity": "Sens", "specificity": "Spec",
    "ppv": "PPV", "npv": "NPV", "f1": "F1", "mcc": "MCC", "accuracy": "Acc", "accuracy_at_half": "Acc½", "brier": "Brier",
    "brier_scaled": "BrierT", "ece": "ECE", "ece_scaled": "ECET", "quadratic_kappa": "QWK", "mae": "MAE", "rmse": "RMSE",
    "r2": "R²", "pearson": "r",
}  # fmt: skip
_CHANCE = {"auroc": 0.5, "mcc": 0.0, "quadratic_kappa": 0.0, "r2": 0.0, "pearson": 0.0}


@dataclass(frozen=True)
class Metric:
    """A metric of the comparison's table.

    Attributes:
        name: as in the table: `auroc`, or `auroc/<target>` for one target of several.
        title: for headings and sentences.
        short: for the screen, up to 6 letters without a target.
        family: one of FAMILIES.
        lower_is_better: errors and miscalibration.
        chance: what guessing reaches, where that is the same for every data set.
        high: where it ends above, None for no end.
        target: the target, where it is that of one of several; else empty.
    """

    name: str
    title: str
    short: str
    family: str = "other"
    lower_is_better: bool = False
    chance: float | None = None
    high: float | None = None
    target: str = ""

    @property
    def start(self) -> str:
        """The title at the start of a sentence."""
        return self.title[0].upper() + self.title[1:]


def metric_of(name: str) -> Metric:
    """What is known of a metric; one that `evaluation.metrics` does not know is shown by its name, higher taken as better."""
    base, _, target = name.partition("/")
    if base not in known.METRICS:
        return Metric(name, name.replace("_", " "), name, target=target)
    own = known.metric(name)
    return Metric(
        name=name,
        title=known.title(name),
        short=f"{_SHORT.get(base, base)} {target}".strip(),
        family=next((family for family, members in _MEMBERS.items() if base in members), "other"),
        lower_is_better=not own.higher_is_better,
        chance=_CHANCE.get(base),
        high=own.high if math.isfinite(own.high) else None,
        target=target,
    )


def primary_of(comparison: pd.DataFrame) -> str:
    """The metric that arms are compared on: the one that the table marks, or its first where it marks none.

    Raises:
        ValueError: the table has no row.
    """
    if comparison.empty:
        raise ValueError("a comparison without rows has no metric")
    marked = comparison[comparison["primary"].to_numpy(bool)] if "primary" in comparison else comparison
    return str((comparison if marked.empty else marked)["metric"].iloc[0])


def metrics_of(comparison: pd.DataFrame) -> list[Metric]:
    """The metrics of a table in its order, those of single targets last."""
    found = [metric_of(name) for name in dict.fromkeys(comparison["metric"])]
    return [metric for metric in found if not metric.target] + [metric for metric in found if metric.target]


def of_family(comparison: pd.DataFrame, family: str) -> list[Metric]:
    """The metrics of one family in the table's order, those of single targets left out."""
    return [metric for metric in metrics_of(comparison) if metric.family == family and not metric.target]
