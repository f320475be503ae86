"""What the splits of a study are, in counts: for people, for the report, and to know them again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medssl.data.groups import codes
from medssl.data.split_kinds import LEAST_PATIENTS
from medssl.data.targets import class_members, class_names, targets_of
from medssl.files import digest_of
from medssl.task import BinaryTask, MultilabelTask, OfficialSplit, RegressionTask, Task

PARTS = ("train", "validation", "test", "removed")


def summarise(splits: pd.DataFrame, exact_hash: pd.Series, task: Task | None) -> dict[str, Any]:
    """Counts for people and for the report, and digests of content, the same at every site that has the same images.

    Args:
        splits: see `splits.make_splits`.
        exact_hash: the manifest's.
        task: with its classes filled in; None where the study has no task: all parts are then empty.

    Returns:
        parts: for each of PARTS what `count` gives; leaks: images and patients that are left on both sides, because the study
        says `collisions: allow`; excluded_from_pretraining: images and patients by reason; and digests.
    """
    mine = splits[splits["source"] == (task.data if task else None)]
    dropped, leaking = splits[splits["excluded"].notna()], splits[splits["leaks"]]
    reasons = {
        reason: {"images": int(count), "patients": int(dropped.loc[dropped["excluded"] == reason, "patient"].nunique())}
        for reason, count in dropped["excluded"].value_counts().sort_index().items()
    }
    return {
        "parts": {name: count(mine[mine["split"] == name], task) for name in PARTS},
        "collisions": task.split.collisions if task and isinstance(task.split, OfficialSplit) else None,
        "leaks": {"images": len(leaking), "patients": int(leaking["patient"].nunique())},
        "excluded_from_pretraining": reasons,
        "pretraining_images": int(splits["pretrain"].sum()),
        "linked_groups": _linked_groups(splits),
        "digest": digest_of([exact_hash.tolist(), splits["split"].tolist(), splits["group"].tolist()]),
        "excluded_digest": digest_of(sorted(exact_hash[splits["excluded"].notna()])),
    }


def count(part: pd.DataFrame, task: Task | None) -> dict[str, Any]:
    """Counts of one part of a split.

    Args:
        part: rows of the splits table.
        task: None: there are no labels.

    Returns:
        patients, studies, images, labelled_patients, labelled_images; classes: for each of `targets.class_names` its images and
        patients; too_few: the classes with fewer than 2 patients; positive_images: of a binary task, else None; values: of a
        regression least, mean and greatest value and the standard deviation, else None.
    """
    labelled = part[part["label"].notna()]
    classes, values = {}, None
    if task is not None:
        labels = targets_of(part, task)
        members = class_members(labels, task)
        for at, name in enumerate(class_names(task)):
            inside = part[members[:, at]]
            classes[name] = {"images": len(inside), "patients": int(inside["patient"].nunique())}
        if isinstance(task, RegressionTask) and len(labelled):
            known = labelled["label"].to_numpy()
            values = {"least": known.min(), "mean": known.mean(), "greatest": known.max(), "deviation": known.std()}
            values = {name: float(value) for name, value in values.items()}
    return {
        "patients": int(part["patient"].nunique()),
        "studies": int(part["study"].nunique()),
        "images": len(part),
        "labelled_patients": int(labelled["patient"].nunique()),
        "labelled_images": len(labelled),
        "positive_images": int((labelled["label"] == 1).sum()) if task is None or isinstance(task, BinaryTask) else None,
        "classes": classes,
        "too_few": [name for name, counts in classes.items() if counts["patients"] < LEAST_PATIENTS],
        "values": values,
    }


def in_words(part: dict[str, Any], task: Task) -> str:
    """`812 labelled: 601 pneumonia, 211 normal`, for a line on the screen."""
    said = f"{part['labelled_images']:,} labelled"
    if isinstance(task, RegressionTask):
        values = part["values"]
        return f"{said}, {values['least']:g} to {values['greatest']:g}, mean {values['mean']:.4g}" if values else said
    if isinstance(task, MultilabelTask):
        classes = {name: part["classes"][f"{name}: {task.positive}"] for name in task.targets}
        return f"{said}, {task.positive}: " + ", ".join(f"{counts['images']:,} {name}" for name, counts in classes.items())
    return f"{said}: " + ", ".join(f"{counts['images']:,} {name}" for name, counts in part["classes"].items())


def _linked_groups(splits: pd.DataFrame) -> int:
    """Groups of more than one patient."""
    patients = pd.DataFrame({"group": splits["group"], "patient": codes(splits["patient"])}).drop_duplicates()
    return int(np.sum(patients["group"].value_counts() > 1))
