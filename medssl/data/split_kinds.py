"""The kinds of split: which part each image of the labelled data set goes to. One function a kind."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.stratify import Strata, deal, divide, strata_of
from medssl.errors import DataError
from medssl.strict import near_miss
from medssl.task import FoldSplit, HeldOutSplit, MulticlassTask, OfficialSplit, OrdinalTask, PatientSplit, Task

LEAST_PATIENTS = 2  # of each class, in each part: below that no metric has a meaning
LISTED = 8  # values that an error names


def parts_of(part: pd.DataFrame, task: Task, seed: int) -> pd.Series:
    """train, validation, test or removed for each row of the labelled data set.

    Args:
        part: columns group, exact_hash, official_split, the labels, and the column of a held_out split.
        task: with its classes filled in; `task.split` says the kind.
        seed: the study's.

    Raises:
        DataError: a class has too few patients, there is no such value, or an official split leaks and may not.
    """
    split = task.split
    if isinstance(split, OfficialSplit):
        return _official(part, task, split)
    if isinstance(split, HeldOutSplit):
        return _held_out(part, task, split, seed)
    return _folds(part, task, split, seed) if isinstance(split, FoldSplit) else _by_patient(part, task, split, seed)


def _by_patient(part: pd.DataFrame, task: Task, split: PatientSplit, seed: int) -> pd.Series:
    strata = strata_of(part, task, seed, "split")
    drawn = divide(strata, [split.test, split.validation])
    _require_strata(strata, drawn, task, f"training, validation {split.validation:.0%} and test {split.test:.0%}")
    return _named(part, strata, np.array(["test", "validation", "train"])[drawn])


def _folds(part: pd.DataFrame, task: Task, split: FoldSplit, seed: int) -> pd.Series:
    strata = strata_of(part, task, seed, "folds")
    drawn = np.where(deal(strata, split.folds) == split.fold, 0, 2)
    rest = np.flatnonzero(drawn)
    drawn[rest] = divide(strata.of(rest), [split.validation]) + 1
    _require_strata(strata, drawn, task, f"{split.folds} folds, and validation {split.validation:.0%} of the rest")
    return _named(part, strata, np.array(["test", "validation", "train"])[drawn])


def _held_out(part: pd.DataFrame, task: Task, split: HeldOutSplit, seed: int) -> pd.Series:
    values = part[split.column]
    inside = values.isin(split.values) if split.values is not None else pd.to_numeric(values) > split.after
    _require_values(values, inside, task, split)
    sides = pd.DataFrame({"inside": inside & values.notna(), "outside": ~inside & values.notna(), "unknown": values.isna()})
    sides = sides.groupby(part["group"]).any()
    test, rest = sides.index[~sides["outside"] & ~sides["unknown"]], sides.index[~sides["inside"] & ~sides["unknown"]]
    beyond = part[part["group"].isin(rest)]
    strata = strata_of(beyond, task, seed, "held_out")
    drawn = divide(strata, [split.validation]) + 1
    named = _named(beyond, strata, np.array(["test", "validation", "train"])[drawn])
    chosen = pd.Series("removed", index=part.index)
    chosen[named.index] = named
    return chosen.mask(part["group"].isin(test), "test")


def _require_values(values: pd.Series, inside: pd.Series, task: Task, split: HeldOutSplit) -> None:
    there = sorted(map(str, values.dropna().unique()))
    shown = ", ".join(there[:LISTED]) + (", ..." if len(there) > LISTED else "")
    if not there:
        raise DataError(f"task.split.column: no image of {task.data} has a value of {split.column}; choose another column")
    for value in split.values or []:
        if not (values == value).any():
            raise DataError(
                f"task.split.values: no image of {task.data} has the {split.column} {value!r}{near_miss(str(value), there)}; there are: {shown}"
            )
    if not inside.any():
        raise DataError(f"task.split.after: no image of {task.data} has a {split.column} above {split.after}; there are: {shown}")


def _official(part: pd.DataFrame, task: Task, split: OfficialSplit) -> pd.Series:
    if part["official_split"].isna().all():
        raise DataError(f"task.split: the card of {task.data} brings no official split; use kind: patient")
    collides = colliding(part)
    if collides.any() and split.collisions == "refuse":
        groups = part.loc[collides, "group"].nunique()
        raise DataError(
            f"task.split: the official split of {task.data} has {groups} patients (or pairs with identical or near-identical images) on both sides, "
            f"{int(collides.sum())} images; set task.split.collisions: remove_from_training, or use kind: patient; `medssl splits audit` lists them"
        )
    published = part["official_split"].fillna("removed")
    return published if split.collisions == "allow" else published.mask(collides, "removed")


def colliding(part: pd.DataFrame) -> pd.Series:
    """(N,) bool: the official split puts the image into training and its group also into validation or test, or into validation
    and its group also into test.

    Args:
        part: columns group and official_split.
    """
    rank = part["official_split"].map({"train": 0, "validation": 1, "test": 2})
    highest = rank.groupby(part["group"]).transform("max")
    return rank.notna() & (rank < highest)


def _named(part: pd.DataFrame, strata: Strata, names: np.ndarray) -> pd.Series:
    """By row; unlabelled patients train the encoder and nothing else."""
    return part["group"].map(dict(zip(strata.groups.tolist(), names.tolist(), strict=True))).fillna("train")


def _require_strata(strata: Strata, drawn: np.ndarray, task: Task, what: str) -> None:
    """See that each class can be divided; `drawn`: 0 test, 1 validation, 2 train."""
    if strata.stratum is None:
        return  # `splits.make_splits` looks at each target
    counts = np.zeros((len(strata.names), 3), np.int64)
    np.add.at(counts, (strata.stratum, drawn), 1)
    names = [f"the class '{name}'" for name in strata.names]
    if strata.ranges:  # a range may be missing from a small part, the number itself may not
        counts, names = counts.sum(axis=0, keepdims=True), [f"'{task.targets[0]}'"]
    classes = isinstance(task, MulticlassTask | OrdinalTask)
    for at, (name, (test, validation, train)) in enumerate(zip(names, counts.tolist(), strict=True)):
        if classes and not counts[at].any() and strata.members[:, at].sum() >= 2 * LEAST_PATIENTS:
            continue  # all of its patients have a rarer class too, by which they are divided
        if test < LEAST_PATIENTS or train < LEAST_PATIENTS or (task.split.validation and not validation):
            total = test + validation + train
            leave = "; label more patients" + (", leave it out of task.classes" if classes else "")
            raise DataError(
                f"task: {name} has {total} patients in {task.data}, too few to divide into {what}{leave} or change task.split"
            )
