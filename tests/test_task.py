"""Tasks: every kind and every split as a study file says it, what comes out of a model, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from medssl.errors import StudyError
from medssl.strict import StrictModel, check
from medssl.task import KINDS, Outputs, Task

BINARY = {"kind": "binary", "data": "clinic", "target": "finding", "positive": "ill"}
CLASSES = {"data": "clinic", "target": "grade", "classes": ["none", "mild", "severe"]}
LABELS = {"kind": "multilabel", "data": "clinic", "targets": ["oedema", "mass"], "positive": "yes", "negative": "no"}


class Holder(StrictModel):
    task: Task


def task(**values):
    return check(Holder, {"task": values}, "study.yaml", StudyError).task


@pytest.mark.parametrize(
    ("values", "outputs", "targets"),
    [
        (BINARY, Outputs("binary", ("ill",)), ["finding"]),
        ({"kind": "multiclass", **CLASSES}, Outputs("multiclass", ("none", "mild", "severe")), ["grade"]),
        ({"kind": "ordinal", **CLASSES}, Outputs("ordinal", ("none", "mild", "severe")), ["grade"]),
        (LABELS, Outputs("multilabel", ("oedema", "mass")), ["oedema", "mass"]),
        ({"kind": "regression", "data": "clinic", "target": "age"}, Outputs("regression", ("age",)), ["age"]),
    ],
)
def test_every_kind(values, outputs, targets):
    read = task(**values)
    assert read.outputs == outputs
    assert read.targets == targets
    assert (read.level, read.pooling, read.split.kind) == ("image", "mean", "patient")
    assert task(**values, level="patient", pooling="max").pooling == "max"
    # What is written into records is read again as the same task.
    assert task(**read.model_dump(mode="json")) == read


def test_the_kinds_are_those_of_the_union():
    schema = TypeAdapter(Task).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(KINDS)


def test_classes_left_out_are_those_of_the_card_and_unknown_without_it():
    read = task(kind="ordinal", data="clinic", target="grade")
    with pytest.raises(ValueError, match="those of its card"):
        _ = read.outputs


def test_every_split():
    assert task(**BINARY, split={"test": 0.2}).split.kind == "patient"
    assert task(**BINARY, split={"kind": "official", "collisions": "allow"}).split.collisions == "allow"
    fold = task(**BINARY, split={"kind": "folds", "fold": 4}).split
    assert (fold.folds, fold.fold, fold.validation) == (5, 4, 0.1)
    values = ["GE", "Siemens"]
    assert task(**BINARY, split={"kind": "held_out", "column": "vendor", "values": values}).split.values == values
    years = task(**BINARY, split={"kind": "held_out", "column": "study_year", "after": 2019, "validation": 0.0}).split
    assert (years.after, years.values) == (2019, None)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (BINARY | {"kind": "binry"}, r"did you mean 'binary'\?"),
        (BINARY | {"level": "study"}, r"task\.level: is 'study'; allowed: 'image' or 'patient'"),
        (BINARY | {"classes": ["a", "b"]}, r"task\.classes: unknown key"),
        ({"kind": "multiclass", **CLASSES, "classes": ["a"]}, r"task\.classes: .*at least 2 items"),
        ({"kind": "multiclass", **CLASSES, "classes": ["a", "b", "a"]}, "classes names a class twice"),
        (LABELS | {"targets": ["mass", "mass"]}, "targets names a target twice"),
        (LABELS | {"targets": ["mass"]}, r"task\.targets: .*at least 2 items"),
        ({key: value for key, value in LABELS.items() if key != "negative"}, r"task\.negative: is missing"),
        (BINARY | {"split": {"kind": "folds", "folds": 3, "fold": 3}}, "fold is 3; allowed: 0 to 2"),
        (BINARY | {"split": {"kind": "fold"}}, r"did you mean 'folds'\?"),
        (BINARY | {"split": {"kind": "held_out", "column": "vendor"}}, "exactly one of values, after"),
        (BINARY | {"split": {"kind": "held_out", "column": "age", "values": [3], "after": 2}}, "exactly one of values, after"),
        (BINARY | {"split": {"kind": "official", "collisions": "ignore"}}, "is 'ignore'; allowed"),
        (BINARY | {"split": {"test": 0.6, "validation": 0.4}}, "must leave something to train on"),
    ],
)
def test_each_wrong_key_gets_its_line(values, line):
    with pytest.raises(StudyError, match=line) as caught:
        task(**values)
    assert "\n" not in str(caught.value)
