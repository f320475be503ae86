"""The label budget: which labelled patients an arm may learn from, validation included, drawn nested and by content.

A budget is everything that is read of the labels. Under 100 patients it is cross-validated inside; from 100 on it is divided
80/20 into fit and validation. A smaller budget of the same draw is inside every larger one. A budget of the whole pool has one draw:
every number gives the same rows and the same divisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.data.split_kinds import LEAST_PATIENTS
from medssl.data.stratify import Strata, deal, first, strata_of
from medssl.data.targets import targets_of
from medssl.errors import DataError
from medssl.finetuning import budget_name
from medssl.task import BinaryTask, MultilabelTask, RegressionTask, Task

HOLD_OUT_FROM = 100  # patients
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class LabelDraw:
    """The rows of one draw of labels and how they are divided."""

    budget: str  # as written in the study file: "40", "10%" or "all"
    seed: int  # which draw
    patients: int  # linked patients count as one
    rows: np.ndarray  # positions in the manifest of every image of the budget
    labels: np.ndarray  # (n, T) float64, a row of `targets.targets_of` for each of `rows`; NaN unknown, never in a whole row
    groups: np.ndarray  # group of each row
    divisions: list[tuple[np.ndarray, np.ndarray]]  # (fit, validation) as positions into `rows`: one, or one a fold
    cross_validated: bool
    too_few: tuple[str, ...] = ()  # multilabel: targets with fewer than 2 positive or 2 negative patients in the budget


def draw_labels(
    splits: pd.DataFrame, exact_hash: pd.Series, budget: int | float | str, seed: int, draw: int, *, folds: int, task: Task
) -> LabelDraw:
    """Draw `budget` labelled patients of the training part.

    Args:
        splits: the splits table, in the manifest's order.
        exact_hash: the manifest's column.
        budget: patients (int), share of the pool (float), or "all".
        seed: the study's seed.
        draw: which draw of labels, from 0; of a budget of the whole pool all are the same.
        folds: folds of the cross-validation of a small budget; fewer where a class has fewer patients.
        task: the splits' task, with its classes filled in.

    Raises:
        DataError: the pool is smaller than the budget, or a class has fewer than 2 patients in it (multilabel: no target has
            2 positive and 2 negative ones; regression: fewer than 4 patients).
    """
    rows = np.flatnonzero(_usable(splits).to_numpy())
    part = splits.iloc[rows].assign(exact_hash=exact_hash.iloc[rows])
    pool = part["group"].nunique()
    wanted = patients_of(budget, pool)
    strata = strata_of(part, task, seed, f"labels/{draw if wanted < pool else 0}")
    chosen = strata.of(first(strata, wanted))
    least, too_few = _least(chosen, task, f"draw {draw} of {budget_name(budget)}", f"the pool has {_in_words(strata, task)}")
    kept = part["group"].isin(chosen.groups).to_numpy()
    rows, groups = rows[kept], part["group"].to_numpy()[kept]
    cross = wanted < HOLD_OUT_FROM
    parts = min(folds, least) if cross else round(1 / VALIDATION_SHARE)
    number = pd.Series(deal(chosen, parts), index=chosen.groups)[groups].to_numpy()
    divisions = [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(parts if cross else 1)]
    labels = targets_of(splits.iloc[rows], task)
    return LabelDraw(budget_name(budget), draw, wanted, rows, labels, groups, divisions, cross, too_few)


def pool_of(splits: pd.DataFrame) -> int:
    """Labelled patients of the training part, linked ones as one: what a budget is drawn from."""
    return splits.loc[_usable(splits), "group"].nunique()


def _usable(splits: pd.DataFrame) -> pd.Series:
    return (splits["split"] == "train") & splits["label"].notna()


def patients_of(budget: int | float | str, pool: int) -> int:
    """Patients that a budget comes to.

    Raises:
        DataError: more than the pool has.
    """
    wanted = pool if budget == "all" else budget if isinstance(budget, int) else max(2, round(budget * pool))
    if wanted > pool:
        raise DataError(f"finetune.budgets: {budget} patients are asked for, the training part has {pool} labelled ones; use all")
    return wanted


def _least(chosen: Strata, task: Task, what: str, pool: str) -> tuple[int, tuple[str, ...]]:
    """Patients of the rarest class that counts, at least 2, and the targets of a multilabel task that have too few."""
    if isinstance(task, RegressionTask):
        if len(chosen.groups) < 2 * LEAST_PATIENTS:
            raise DataError(
                f"finetune.budgets: {what} has {len(chosen.groups)} patients, and at least {2 * LEAST_PATIENTS} are needed to fit and "
                f"validate; use a larger budget ({pool})"
            )
        return len(chosen.groups) // LEAST_PATIENTS, ()
    if isinstance(task, MultilabelTask):
        pairs = chosen.members.sum(axis=0).reshape(-1, 2).min(axis=1)
        too_few = tuple(name for name, least in zip(task.targets, pairs.tolist(), strict=True) if least < LEAST_PATIENTS)
        if len(too_few) == len(task.targets):
            raise DataError(
                f"finetune.budgets: {what} has too few patients: none of {', '.join(too_few)} has at least {LEAST_PATIENTS} positive and "
                f"{LEAST_PATIENTS} negative ones to fit and validate; use a larger budget ({pool})"
            )
        return int(pairs.max()), too_few
    sizes = np.bincount(chosen.stratum, minlength=len(chosen.names))
    # A patient with images of several classes stands for the rarest of them, but has the others too.
    counts = sizes if isinstance(task, BinaryTask) else chosen.members.sum(axis=0)
    least = int(counts.min())
    if least < LEAST_PATIENTS:
        of = "one class" if isinstance(task, BinaryTask) else f"the class '{chosen.names[int(counts.argmin())]}'"
        raise DataError(
            f"finetune.budgets: {what} has {least} patients of {of}, and at least {LEAST_PATIENTS} are needed to "
            f"fit and validate; use a larger budget ({pool})"
        )
    return max(int(sizes[sizes > 0].min()), LEAST_PATIENTS), ()


def _in_words(strata: Strata, task: Task) -> str:
    if isinstance(task, RegressionTask):
        return f"{len(strata.groups)} patients"
    if isinstance(task, BinaryTask):
        return f"{len(strata.groups)} patients, {int((strata.stratum == 1).sum())} positive"
    counts = strata.members.sum(axis=0).tolist()
    named = ", ".join(f"{count} with {name}" for name, count in zip(strata.names, counts, strict=True))
    return f"{len(strata.groups)} patients: {named}"
