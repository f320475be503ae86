"""The task of a study against the card of its data set: said before any work, in one line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from medssl.data.card import Card
from medssl.data.manifest import COLUMNS
from medssl.errors import StudyError
from medssl.strict import near_miss
from medssl.study import Study
from medssl.task import BinaryTask, HeldOutSplit, MulticlassTask, MultilabelTask, OfficialSplit, OrdinalTask, RegressionTask, Task


def resolved(task: Task, card: Card) -> Task:
    """The task with its classes filled in: those of the card, in its order, where the study names none."""
    if isinstance(task, MulticlassTask | OrdinalTask) and task.classes is None:
        return task.model_copy(update={"classes": list(card.targets[task.target].classes)})
    return task


def check_task(study: Study, cards: dict[str, Card], config: Path) -> None:
    """Check targets, classes and the split against the card.

    Raises:
        StudyError: one is not there, or is of another kind.
    """
    task = study.task
    if task is None:
        return
    card = cards[task.data]
    for target in task.targets:
        _check_target(task, target, card, config)
    if isinstance(task, BinaryTask | MultilabelTask):
        for key in ("positive", "negative"):
            for target in task.targets:
                _check_class(getattr(task, key), f"task.{key}", target, card, config)
        if task.positive == task.negative:
            others = [name for name in card.targets[task.targets[0]].classes if name != task.positive]
            raise StudyError(
                f"{config}: task.negative: is the same class as task.positive; allowed: another of {', '.join(others)}"
            )
    elif not isinstance(task, RegressionTask):
        for name in task.classes or []:
            _check_class(name, "task.classes", task.target, card, config)
    _check_split(task, card, config)


def _check_target(task: Task, target: str, card: Card, config: Path) -> None:
    key = "task.targets" if isinstance(task, MultilabelTask) else "task.target"
    numeric = isinstance(task, RegressionTask)
    fitting = [name for name, known in card.targets.items() if known.numeric == numeric]
    if target not in card.targets:
        known = list(card.targets)
        raise StudyError(
            f"{config}: {key}: is '{target}'{near_miss(target, known)}; the card {card.name} has: {', '.join(known) or 'none'}"
        )
    if target not in fitting:
        says, needs = ("classes", "numeric ones") if numeric else ("numbers", "ones with classes")
        raise StudyError(
            f"{config}: {key}: '{target}' has {says} in the card {card.name}, kind {task.kind} needs {needs}; it has: {', '.join(fitting) or 'none'}"
        )


def _check_class(name: str | None, key: str, target: str, card: Card, config: Path) -> None:
    classes = list(card.targets[target].classes)
    if name is not None and name not in classes:
        raise StudyError(
            f"{config}: {key}: is '{name}'{near_miss(name, classes)}; the target '{target}' has: {', '.join(classes)}"
        )


def _check_split(task: Task, card: Card, config: Path) -> None:
    split = task.split
    if isinstance(split, OfficialSplit) and card.official_split is None:
        raise StudyError(
            f"{config}: task.split: the card {card.name} brings no official split; allowed: kind patient, folds, held_out"
        )
    if not isinstance(split, HeldOutSplit):
        return
    types = {column.name: column.type for column in COLUMNS if not pa.types.is_list(column.type)}
    if split.column not in types:
        allowed = list(types)
        raise StudyError(
            f"{config}: task.split.column: is '{split.column}'{near_miss(split.column, allowed)}; allowed: a column of the manifest, such "
            "as vendor, view, study_year, age, sex, source"
        )
    of = types[split.column]
    number = pa.types.is_integer(of) or pa.types.is_floating(of)
    if split.after is not None and not number:
        raise StudyError(f"{config}: task.split.after: is for a column of numbers, and {split.column} holds {of}; use values")
    fits = (int, float) if number else bool if pa.types.is_boolean(of) else str
    for value in split.values or []:
        if not isinstance(value, fits) or (number and isinstance(value, bool)):
            raise StudyError(
                f"{config}: task.split.values: {value!r} cannot stand in the column {split.column}, which holds {of}"
            )
