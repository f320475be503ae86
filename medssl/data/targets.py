"""From the classes of the manifest to the numbers that a task learns: NaN where a label is not known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.manifest import LABEL_PREFIX
from medssl.task import BinaryTask, MultilabelTask, RegressionTask, Task


def label_columns(manifest: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The label columns of the splits table, float64, NaN where unknown or of another data set.

    Args:
        manifest: columns source and `label.<target>` of the task's targets.
        task: with its classes filled in.

    Returns:
        `label`: binary 0 or 1; multiclass and ordinal the index of the class; regression the value; multilabel 1 where any
        known target is positive, 0 where all known ones are negative. multilabel besides: `label.<target>`, 0 or 1.
    """
    mine = manifest["source"] == task.data
    raw = {target: manifest[f"{LABEL_PREFIX}{target}"].where(mine) for target in task.targets}
    if isinstance(task, MultilabelTask):
        known = {f"{LABEL_PREFIX}{target}": _coded(raw[target], [task.negative, task.positive]) for target in task.targets}
        return pd.DataFrame({"label": pd.DataFrame(known).max(axis=1), **known})
    values = raw[task.target]
    if isinstance(task, RegressionTask):
        return pd.DataFrame({"label": values.astype("float64")})
    if isinstance(task, BinaryTask) and task.negative is None:
        return pd.DataFrame({"label": (values == task.positive).astype("float64").where(values.notna())})
    classes = [task.negative, task.positive] if isinstance(task, BinaryTask) else list(task.outputs.names)
    return pd.DataFrame({"label": _coded(values, classes)})


def targets_of(splits: pd.DataFrame, task: Task) -> np.ndarray:
    """(N, T) float64: the labels of each row, NaN unknown; T is 1, of a multilabel task the number of its targets.

    Args:
        splits: the splits table of the task.
        task: whose splits they are.
    """
    columns = [f"{LABEL_PREFIX}{target}" for target in task.targets] if isinstance(task, MultilabelTask) else ["label"]
    return splits[columns].to_numpy(np.float64)


def class_names(task: Task) -> list[str]:
    """What the rows of `class_members` are called, for tables and errors: two a target, one a class, none for a number."""
    if isinstance(task, RegressionTask):
        return []
    if isinstance(task, MultilabelTask):
        return [f"{target}: {name}" for target in task.targets for name in (task.positive, task.negative)]
    if isinstance(task, BinaryTask):
        return [task.positive, task.negative or f"not {task.positive}"]
    return list(task.outputs.names)


def class_members(labels: np.ndarray, task: Task) -> np.ndarray:
    """(N, L) bool: whether a row is known to be of each of `class_names`.

    Args:
        labels: (N, T) as `targets_of` gives them.
    """
    if isinstance(task, RegressionTask):
        return np.zeros((len(labels), 0), bool)
    if isinstance(task, BinaryTask | MultilabelTask):
        return np.stack([labels == 1, labels == 0], axis=2).reshape(len(labels), 2 * labels.shape[1])
    return labels == np.arange(len(task.outputs.names))


def _coded(values: pd.Series, classes: list[str]) -> pd.Series:
    return values.map({name: float(number) for number, name in enumerate(classes)}).astype("float64")
