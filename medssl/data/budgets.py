"""The label budget: which labelled patients an arm may learn from, validation included, drawn nested and by content.

A budget is everything that is read of the labels. Under 100 patients it is cross-validated inside; from 100 on it is divided
80/20 into fit and validation. A smaller budget of the same draw is inside every larger one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.data.groups import order_groups
from medssl.errors import DataError
from medssl.task import BinaryTask

HOLD_OUT_FROM = 100  # patients
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class LabelDraw:
    """The rows of one draw of labels and how they are divided."""

    budget: str  # as written in the study file: "40", "10%" or "all"
    seed: int
    patients: int  # linked patients count as one
    rows: np.ndarray  # positions in the manifest of every image of the budget
    labels: np.ndarray  # (n, T) float64, NaN unknown
    groups: np.ndarray  # group of each row
    divisions: list[tuple[np.ndarray, np.ndarray]]  # (fit, validation) as positions into `rows`: one, or one a fold
    cross_validated: bool


def budget_name(budget: int | float | str) -> str:
    """How a budget is called in tables: `40` (patients), `10%`, `all`."""
    if isinstance(budget, float):
        return "all" if budget == 1.0 else f"{100 * budget:g}%"
    return str(budget)


def draw_labels(
    splits: pd.DataFrame,
    exact_hash: pd.Series,
    budget: int | float | str,
    seed: int,
    draw: int,
    *,
    folds: int,
    task: BinaryTask | None = None,
) -> LabelDraw:
    """Draw `budget` labelled patients of the training part.

    Args:
        splits: the splits table, in the manifest's order.
        exact_hash: the manifest's column.
        budget: patients (int), share of the pool (float), or "all".
        seed: the study's seed.
        draw: which draw of labels, from 0.
        folds: folds of the cross-validation of a small budget; fewer where a class has fewer patients.
        task: the splits' task.

    Raises:
        DataError: the pool is smaller than the budget, or a class has fewer than 2 patients in it.
    """
    usable = (splits["split"] == "train") & splits["label"].notna()
    rows = np.flatnonzero(usable.to_numpy())
    part = splits.iloc[rows].assign(exact_hash=exact_hash.iloc[rows])
    positive = part.groupby("group")["label"].max().astype(int)
    chosen = _nested_order(part, positive, seed, draw)[: _patients(budget, len(positive))]
    counts = positive[chosen].value_counts()
    least = int(min(counts.get(0, 0), counts.get(1, 0)))
    if least < 2:
        raise DataError(
            f"finetune.budgets: draw {draw} of {budget_name(budget)} has {least} patients of one class, and at least 2 are needed to "
            f"fit and validate; use a larger budget (the pool has {len(positive)} patients, {int(positive.sum())} positive)"
        )
    kept = part["group"].isin(chosen).to_numpy()
    rows, groups = rows[kept], part["group"].to_numpy()[kept]
    cross = len(chosen) < HOLD_OUT_FROM
    parts = min(folds, least) if cross else round(1 / VALIDATION_SHARE)
    fold = _stratified_folds(chosen, positive, parts)
    number = np.array([fold[group] for group in groups])
    divisions = [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(parts if cross else 1)]
    labels = part["label"].to_numpy(np.float64)[kept][:, None]
    return LabelDraw(budget_name(budget), draw, len(chosen), rows, labels, groups, divisions, cross)


def _patients(budget: int | float | str, pool: int) -> int:
    wanted = pool if budget == "all" else budget if isinstance(budget, int) else max(2, round(budget * pool))
    if wanted > pool:
        raise DataError(f"finetune.budgets: {budget} patients are asked for, the training part has {pool} labelled ones; use all")
    return wanted


def _nested_order(part: pd.DataFrame, positive: pd.Series, seed: int, draw: int) -> list[int]:
    """All groups of the pool such that every beginning of the list has the pool's prevalence as nearly as can be."""
    order = order_groups(part, seed, f"labels/{draw}")
    place = {}
    for label in (0, 1):
        stratum = order[positive.index[positive == label]].sort_values().index
        place |= {group: ((rank + 0.5) / len(stratum), order[group]) for rank, group in enumerate(stratum)}
    return sorted(place, key=place.get)


def _stratified_folds(chosen: list[int], positive: pd.Series, parts: int) -> dict[int, int]:
    """Deal the groups of each class in turn, in the order of the draw, so that every fold has its share of both."""
    fold, dealt = {}, 0
    for label in (0, 1):
        for group in (g for g in chosen if positive[g] == label):
            fold[group] = dealt % parts
            dealt += 1
    return fold
