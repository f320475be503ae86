"""Splits by patient, made over all sources before any pretraining, and what pretraining must not see."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.groups import codes, link_patients, near_classes, order_groups
from medssl.data.manifest import LABEL_PREFIX
from medssl.errors import DataError
from medssl.files import digest_of
from medssl.task import BinaryTask, OfficialSplit, PatientSplit

HELD_OUT = ("validation", "test")
LEAST_PATIENTS = 2  # of each class, in each part: below that no metric has a meaning


def make_splits(
    manifest: pd.DataFrame, task: BinaryTask | None, seed: int, *, transductive: bool, near: np.ndarray | None = None
) -> pd.DataFrame:
    """One row an image, in the manifest's order; see manifest.SPLIT_COLUMNS.

    Args:
        manifest: all sources together; the columns manifest.SPLITTING and `label.<target>` of the task, or more.
        task: names the labelled data set, its target, and the kind of split. None: all images are for pretraining.
        seed: the study's.
        transductive: let pretraining see held-out patients; every table then says so.
        near: (M, 2) positions of near-identical images, see `near.near_images`. They link patients, and what is near to a
            held-out image is kept from pretraining and from the training part.

    Raises:
        DataError: no labels, a class with too few patients, or an official split that leaks and may not.
    """
    splits = manifest[["row_key", "source", "patient"]].copy()
    splits["group"] = link_patients(manifest, near)
    if task is None:
        unlabelled = pd.array([pd.NA] * len(splits), dtype="Int8")
        return splits.assign(split="archive", label=unlabelled, excluded=None, pretrain=True)
    splits["label"] = binary_labels(manifest, task)
    mine = (manifest["source"] == task.data).to_numpy()
    splits["split"] = "archive"
    part = splits[mine].assign(exact_hash=manifest.loc[mine, "exact_hash"], official=manifest.loc[mine, "official_split"])
    if isinstance(task.split, PatientSplit):
        splits.loc[mine, "split"] = _by_patient(part, task, task.split, seed)
    else:
        splits.loc[mine, "split"] = _official(part, task, task.split)
    identical, alike = _seen(splits["split"].isin(HELD_OUT).to_numpy(), manifest["exact_hash"], near)
    # Images that many patients share link nobody, so one of them can stand on both sides.
    splits.loc[(identical | alike) & (splits["split"] == "train").to_numpy(), "split"] = "removed"
    _require_classes(splits[mine], task)
    splits["excluded"] = None if transductive else _excluded(splits, identical, alike)
    splits["pretrain"] = splits["excluded"].isna() & (splits["split"] != "removed")
    return splits


def _seen(held: np.ndarray, exact_hash: pd.Series, near: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool each: the image is pixel-identical to a held-out one; it is that, or chained to one by near pairs."""
    image = codes(exact_hash)
    identical = _any_held(held, image)
    return identical, identical if near is None or not len(near) else _any_held(held, near_classes(image, near))


def _any_held(held: np.ndarray, image: np.ndarray) -> np.ndarray:
    return (np.bincount(image, weights=held, minlength=1) > 0)[image]


def binary_labels(manifest: pd.DataFrame, task: BinaryTask) -> pd.Series:
    """(N,) Int8: 1 positive, 0 negative, <NA> unknown or of another data set.

    Raises:
        DataError: the target or its classes are not in the data set's card.
    """
    column = f"{LABEL_PREFIX}{task.target}"
    raw = manifest[column].where(manifest["source"] == task.data)
    labels = pd.Series(pd.NA, index=manifest.index, dtype="Int8")
    labels[raw.notna() & (raw == task.positive)] = 1
    negative = raw.notna() & (raw != task.positive) if task.negative is None else raw == task.negative
    labels[negative.fillna(False)] = 0
    return labels


def _by_patient(part: pd.DataFrame, task: BinaryTask, split: PatientSplit, seed: int) -> pd.Series:
    groups = part.groupby("group")["label"].max()
    order = order_groups(part, seed, "split")
    chosen = pd.Series("train", index=groups.index)  # unlabelled patients train the encoder and nothing else
    for label in (0, 1):
        stratum = order[groups.index[(groups == label).fillna(False)]].sort_values().index
        test, validation = round(len(stratum) * split.test), round(len(stratum) * split.validation)
        name = task.positive if label else (task.negative or f"not {task.positive}")
        if test < LEAST_PATIENTS or len(stratum) - test - validation < LEAST_PATIENTS or (split.validation and not validation):
            raise DataError(
                f"task: the class '{name}' has {len(stratum)} patients in {task.data}, too few to divide into training, validation "
                f"{split.validation:.0%} and test {split.test:.0%}; label more patients or change task.split"
            )
        chosen[stratum[:test]] = "test"
        chosen[stratum[test : test + validation]] = "validation"
    return part["group"].map(chosen)


def _official(part: pd.DataFrame, task: BinaryTask, split: OfficialSplit) -> pd.Series:
    if part["official"].isna().all():
        raise DataError(f"task.split: the card of {task.data} brings no official split; use kind: patient")
    rank = part["official"].map({"train": 0, "validation": 1, "test": 2})
    highest = rank.groupby(part["group"]).transform("max")
    collides = rank.notna() & (rank < highest)
    if collides.any() and split.collisions == "refuse":
        groups = part.loc[collides, "group"].nunique()
        raise DataError(
            f"task.split: the official split of {task.data} has {groups} patients (or pairs with identical or near-identical images) on both sides, "
            f"{int(collides.sum())} images; set task.split.collisions: remove_from_training, or use kind: patient"
        )
    return part["official"].fillna("removed").mask(collides, "removed")


def _require_classes(part: pd.DataFrame, task: BinaryTask) -> None:
    if part["label"].isna().all():
        raise DataError(
            f"task: no image of {task.data} has a label for '{task.target}'; check the card's labels and task.positive"
        )
    for name in ("train", "test"):
        for label in (0, 1):
            patients = part.loc[(part["split"] == name) & (part["label"] == label).fillna(False), "group"].nunique()
            if patients < LEAST_PATIENTS:
                word = "positive" if label else "negative"
                raise DataError(
                    f"task.split: the {name} part of {task.data} has {patients} {word} patients; at least 2 are needed"
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


def assert_disjoint(splits: pd.DataFrame, exact_hash: pd.Series, fitted: np.ndarray, near: np.ndarray | None = None) -> None:
    """Check, before anything is fitted on the rows `fitted`, that no image of a held-out patient, or identical or near to one, is there.

    Raises:
        DataError: one is; this would be a fault of medssl or a file changed by hand.
    """
    held = splits["split"].isin(HELD_OUT).to_numpy()
    leaked = (_any_held(held, splits["group"].to_numpy()) | _seen(held, exact_hash, near)[1])[fitted]
    if leaked.any():
        raise DataError(
            f"splits: {int(leaked.sum())} images of held-out patients are among those to fit on; run `medssl index --fresh`"
        )


def summarise(splits: pd.DataFrame, exact_hash: pd.Series, task_data: str | None) -> dict:
    """Counts for people and for the report, and digests of content, the same at every site that has the same images.

    Args:
        splits: see `make_splits`.
        exact_hash: the manifest's.
        task_data: name of the labelled data set; None where the study has no task: all parts are then empty.
    """
    mine = splits[splits["source"] == task_data]
    parts = {}
    for name in ("train", "validation", "test", "removed"):
        part = mine[mine["split"] == name]
        labelled = part[part["label"].notna()]
        parts[name] = {
            "patients": int(part["patient"].nunique()),
            "images": len(part),
            "labelled_patients": int(labelled["patient"].nunique()),
            "labelled_images": len(labelled),
            "positive_images": int((labelled["label"] == 1).sum()),
        }
    dropped = splits[splits["excluded"].notna()]
    reasons = {
        reason: {"images": int(count), "patients": int(dropped.loc[dropped["excluded"] == reason, "patient"].nunique())}
        for reason, count in dropped["excluded"].value_counts().sort_index().items()
    }
    return {
        "parts": parts,
        "excluded_from_pretraining": reasons,
        "pretraining_images": int(splits["pretrain"].sum()),
        "linked_groups": _linked_groups(splits),
        "digest": digest_of([exact_hash.tolist(), splits["split"].tolist(), splits["group"].tolist()]),
        "excluded_digest": digest_of(sorted(exact_hash[splits["excluded"].notna()])),
    }


def _linked_groups(splits: pd.DataFrame) -> int:
    """Groups of more than one patient."""
    patients = pd.DataFrame({"group": splits["group"], "patient": codes(splits["patient"])}).drop_duplicates()
    return int((patients["group"].value_counts() > 1).sum())
