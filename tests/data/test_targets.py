"""From classes to numbers: each kind of task, with labels that are not known and images of other data sets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.targets import class_members, class_names, label_columns, targets_of
from medssl.task import BinaryTask, MulticlassTask, MultilabelTask, OrdinalTask, RegressionTask

NAN = np.nan


def manifest(**targets: list) -> pd.DataFrame:
    """The last row is of another data set."""
    count = len(next(iter(targets.values())))
    frame = pd.DataFrame({"source": ["clinic"] * (count - 1) + ["archive"]})
    return frame.assign(**{f"label.{name}": pd.Series(values, dtype=object) for name, values in targets.items()})


def test_binary_with_every_other_class_negative_or_one_alone():
    frame = manifest(finding=["ill", "well", "unclear", None, "ill"])
    task = BinaryTask(kind="binary", data="clinic", target="finding", positive="ill")
    np.testing.assert_array_equal(label_columns(frame, task)["label"], [1, 0, 0, NAN, NAN])
    one = task.model_copy(update={"negative": "well"})
    labels = label_columns(frame, one)
    np.testing.assert_array_equal(labels["label"], [1, 0, NAN, NAN, NAN])
    assert labels["label"].dtype == np.float64
    assert class_names(task) == ["ill", "not ill"]
    assert class_names(one) == ["ill", "well"]
    assert class_members(targets_of(labels, one), one).tolist() == [[True, False], [False, True], *[[False, False]] * 3]


def test_classes_are_numbered_in_the_order_of_the_task():
    frame = manifest(grade=["mild", "none", "severe", "other", None, "mild"])
    for kind in (MulticlassTask, OrdinalTask):
        name = kind.__name__.removesuffix("Task").lower()
        task = kind(kind=name, data="clinic", target="grade", classes=["none", "mild", "severe"])
        labels = label_columns(frame, task)
        np.testing.assert_array_equal(targets_of(labels, task)[:, 0], [1, 0, 2, NAN, NAN, NAN])
        assert class_names(task) == ["none", "mild", "severe"]
        members = class_members(targets_of(labels, task), task)
        assert members.argmax(axis=1)[:3].tolist() == [1, 0, 2]
        assert members.sum(axis=1).tolist() == [1, 1, 1, 0, 0, 0]


def test_multilabel_keeps_unknown_apart_from_negative():
    frame = manifest(mass=["yes", "no", "no", "maybe", None, "yes"], oedema=[None, "yes", "no", None, "no", "yes"])
    task = MultilabelTask(kind="multilabel", data="clinic", targets=["oedema", "mass"], positive="yes", negative="no")
    labels = label_columns(frame, task)
    assert list(labels) == ["label", "label.oedema", "label.mass"]
    np.testing.assert_array_equal(labels["label"], [1, 1, 0, NAN, 0, NAN])
    np.testing.assert_array_equal(targets_of(labels, task), [[NAN, 1], [1, 0], [0, 0], [NAN, NAN], [0, NAN], [NAN, NAN]])
    assert class_names(task) == ["oedema: yes", "oedema: no", "mass: yes", "mass: no"]
    assert class_members(targets_of(labels, task), task)[1].tolist() == [True, False, False, True]


def test_regression_takes_the_number():
    frame = manifest(age=["57.0", "-0.5", None, "3e-05", "12.0"])
    task = RegressionTask(kind="regression", data="clinic", target="age")
    labels = label_columns(frame, task)
    np.testing.assert_array_equal(targets_of(labels, task), np.array([[57, -0.5, NAN, 3e-5, NAN]]).T)
    assert class_names(task) == []
    assert class_members(targets_of(labels, task), task).shape == (5, 0)


def test_no_rows_at_all():
    task = MultilabelTask(kind="multilabel", data="clinic", targets=["a", "b"], positive="yes", negative="no")
    assert class_members(np.zeros((0, 2)), task).shape == (0, 4)
