"""Splits by patient, made over all sources before any pretraining, and what pretraining must not see."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.groups import MOST_SHARED, codes, link_patients, near_classes
from medssl.data.manifest import LABEL_PREFIX, SPLITTING
from medssl.data.split_kinds import LEAST_PATIENTS, parts_of
from medssl.data.targets import class_members, class_names, label_columns, targets_of
from medssl.errors import DataError
from medssl.task import HeldOutSplit, MultilabelTask, OfficialSplit, RegressionTask, Task

HELD_OUT = ("validation", "test")


def columns_of(task: Task | None) -> list[str]:
    """The columns of the manifest that `make_splits` looks at."""
    if task is None:
        return list(SPLITTING)
    more = [task.split.column] if isinstance(task.split, HeldOutSplit) else []
    return list(dict.fromkeys([*SPLITTING, *more, *(f"{LABEL_PREFIX}{target}" for target in task.targets)]))


def make_splits(
    manifest: pd.DataFrame, task: Task | None, seed: int, *, transductive: bool, near: np.ndarray | None = None
) -> pd.DataFrame:
    """One row an image, in the manifest's order; see manifest.SPLIT_COLUMNS, and `targets.label_columns` for the labels.

    Args:
        manifest: all sources together; the columns `columns_of(task)`, or more. `study` may be left out: no studies are known.
        task: names the labelled data set, its targets with the classes filled in, and the kind of split. None: all images are
            for pretraining.
        seed: the study's.
        transductive: let pretraining see held-out patients; every table then says so.
        near: (M, 2) positions of near-identical images, see `near.near_images`. They link patients, and what is near to a
            held-out image is kept from pretraining and from the training part.

    Raises:
        DataError: no labels, a class with too few patients, or an official split that leaks and may not.
    """
    splits = manifest[["row_key", "source", "patient"]].copy()
    splits["study"] = manifest.get("study")
    splits["group"] = link_patients(manifest, near)
    splits["leaks"] = False
    if task is None:
        return splits.assign(split="archive", label=np.nan, excluded=None, pretrain=True)
    labels = label_columns(manifest, task)
    splits[labels.columns] = labels
    mine = (manifest["source"] == task.data).to_numpy()
    splits["split"] = "archive"
    more = [column for column in columns_of(task) if column not in splits]
    part = splits[mine].join(manifest.loc[mine, more])
    splits.loc[mine, "split"] = parts_of(part, task, seed)
    identical, alike = seen(splits["split"].isin(HELD_OUT).to_numpy(), manifest["exact_hash"], near)
    if isinstance(task.split, OfficialSplit) and task.split.collisions == "allow":
        splits["leaks"] = _leaking(splits, manifest["exact_hash"], near)
    else:
        # Images that many patients share link nobody, so one of them can stand on both sides.
        known = alike & (splits["split"] == "train").to_numpy()
        tested = seen((splits["split"] == "test").to_numpy(), manifest["exact_hash"], near)[1]
        splits.loc[known | tested & (splits["split"] == "validation").to_numpy(), "split"] = "removed"
    _require_classes(splits[mine], task)
    splits["excluded"] = None if transductive else _excluded(splits, identical, alike)
    splits["pretrain"] = splits["excluded"].isna() & (splits["split"] != "removed")
    return splits


def seen(held: np.ndarray, exact_hash: pd.Series, near: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: the image is pixel-identical to a held-out one; it is that, or chained to one by near pairs."""
    image = codes(exact_hash)
    identical = _any_held(held, image)
    return identical, identical if near is None or not len(near) else _any_held(held, near_classes(image, near))


def _any_held(held: np.ndarray, image: np.ndarray) -> np.ndarray:
    return (np.bincount(image, weights=held, minlength=1) > 0)[image]


def _touches(splits: pd.DataFrame, exact_hash: pd.Series, marked: np.ndarray, near: np.ndarray | None) -> np.ndarray:
    """(N,) bool: a patient, a linked patient, a study, or an identical or near image of the row is among the rows `marked`."""
    touches = _any_held(marked, splits["group"].to_numpy()) | seen(marked, exact_hash, near)[1]
    if "study" in splits and splits["study"].notna().any():
        touches |= studies_of(splits).isin(studies_of(splits)[marked].dropna()).to_numpy()
    return touches


def studies_of(splits: pd.DataFrame) -> pd.Series:
    """The study of each row; empty also where more than MOST_SHARED patients have it: then it is a placeholder.

    Args:
        splits: columns study and patient.
    """
    patients = splits.groupby("study")["patient"].transform("nunique")
    return splits["study"].where(patients <= MOST_SHARED)


def _leaking(splits: pd.DataFrame, exact_hash: pd.Series, near: np.ndarray | None) -> np.ndarray:
    """(N,) bool: rows of training that validation or test knows, and rows of validation that test knows."""
    part = splits["split"]
    leaks = _touches(splits, exact_hash, part.isin(HELD_OUT).to_numpy(), near) & (part == "train").to_numpy()
    return leaks | _touches(splits, exact_hash, (part == "test").to_numpy(), near) & (part == "validation").to_numpy()


def assert_disjoint(splits: pd.DataFrame, exact_hash: pd.Series, fitted: np.ndarray, near: np.ndarray | None = None) -> None:
    """Check, before anything is fitted on the rows `fitted`, that they and the held-out rows know nothing of each other.

    No row of `fitted` may be of a patient, a linked patient or a study of validation or test, or identical or near to one of
    their images; nor may validation be so to test. Rows that the splits table says to leak (an official split with
    `collisions: allow`) are excepted, for every table says so too.

    Raises:
        DataError: one is; this would be a fault of medssl or a file changed by hand.
    """
    excepted = splits["leaks"].to_numpy(bool) if "leaks" in splits else np.zeros(len(splits), bool)
    leaked = (_touches(splits, exact_hash, splits["split"].isin(HELD_OUT).to_numpy(), near) & ~excepted)[fitted]
    if leaked.any():
        raise DataError(
            f"splits: {int(leaked.sum())} images of held-out patients are among those to fit on; run `medssl index --fresh`"
        )
    validation = (splits["split"] == "validation").to_numpy() & ~excepted
    if not validation.any():
        return
    shared = _touches(splits, exact_hash, (splits["split"] == "test").to_numpy(), near) & validation
    if shared.any():
        raise DataError(
            f"splits: {int(shared.sum())} images of test patients are in the validation part; run `medssl index --fresh`"
        )


def _patients_by_class(part: pd.DataFrame, task: Task) -> dict[str, int]:
    """Groups with an image of each class; of a regression those with a value."""
    labels = targets_of(part, task)
    group = part["group"].to_numpy()
    if isinstance(task, RegressionTask):
        return {task.target: len(np.unique(group[~np.isnan(labels[:, 0])]))}
    members = class_members(labels, task)
    return {name: len(np.unique(group[members[:, at]])) for at, name in enumerate(class_names(task))}


def _require_classes(part: pd.DataFrame, task: Task) -> None:
    if part["label"].isna().all():
        names = "' or '".join(task.targets)
        raise DataError(
            f"task: no image of {task.data} has a label for '{names}'; check the card's labels and the task's classes"
        )
    for name in ("train", "test"):
        counts = _patients_by_class(part[part["split"] == name], task)
        if isinstance(task, MultilabelTask):
            pairs = [list(counts.values())[at : at + 2] for at in range(0, len(counts), 2)]
            if not any(min(pair) >= LEAST_PATIENTS for pair in pairs):
                raise DataError(
                    f"task.split: in the {name} part of {task.data} no target has {LEAST_PATIENTS} positive and {LEAST_PATIENTS} negative "
                    f"patients; change task.split or label more patients"
                )
            continue
        enough = sum(count >= LEAST_PATIENTS for count in counts.values())
        # A class that the test part lacks has an unknown figure, so long as two others can be told apart.
        needed = min(2, len(counts)) if name == "test" else len(counts)
        if enough < needed:
            least = min(counts, key=counts.get)
            raise DataError(
                f"task.split: the {name} part of {task.data} has {counts[least]} patients with '{least}'; at least {LEAST_PATIENTS} are needed"
            )


def _excluded(splits: pd.DataFrame, identical: np.ndarray, alike: np.ndarray) -> pd.Series:
    """The reason nearest to the images themselves: the last that is written stays."""
    held = splits["split"].isin(HELD_OUT).to_numpy()
    excluded = pd.Series(None, index=splits.index, dtype=object)
    excluded[_any_held(held, splits["group"].to_numpy())] = "linked_to_held_out"
    excluded[alike] = "near_held_out"
    excluded[identical] = "identical_to_held_out"
    excluded[_any_held(held, codes(splits["patient"]))] = "held_out_patient"
    return excluded
