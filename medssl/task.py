"""The question on the labelled data set: what is predicted, and how its patients are divided. The `task` block of a study file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from medssl.strict import Name, StrictModel

Share = Annotated[float, Field(ge=0, le=1)]
KINDS = ("binary", "multiclass", "multilabel", "ordinal", "regression")


@dataclass(frozen=True)
class Outputs:
    """What a model of a task puts out, in order.

    Attributes:
        kind: one of KINDS.
        names: of the K outputs. binary: the positive class; multiclass and ordinal: the classes, ordinal from least to most;
            multilabel: the targets; regression: the target.
    """

    kind: str
    names: tuple[str, ...]


class PatientSplit(StrictModel):
    """Patients drawn at random, stratified by label, images that are identical or nearly so kept together."""

    kind: Literal["patient"] = "patient"
    validation: Share = 0.1
    test: Share = 0.3

    @model_validator(mode="after")
    def _leaves_training(self) -> PatientSplit:
        if self.test <= 0 or self.validation + self.test >= 1:
            raise ValueError("validation + test must leave something to train on, and test must be above 0")
        return self


class OfficialSplit(StrictModel):
    """The split that the data set's card brings."""

    kind: Literal["official"] = "official"
    collisions: Literal["refuse", "remove_from_training", "allow"] = Field(
        default="refuse",
        description="Patients, studies or images on both sides: refused; taken out of training (and of validation, where they are "
        "in test too); allow: left as published, and every table says so",
    )


class FoldSplit(StrictModel):
    """k-fold: the patients are dealt into folds once, stratified; the test part is one of them. A fold is a study of its own."""

    kind: Literal["folds"] = "folds"
    folds: int = Field(default=5, ge=2, le=100)
    fold: int = Field(default=0, ge=0, description="Which fold is the test part, from 0")
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, description="Share of the patients of the other folds")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> FoldSplit:
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}; allowed: 0 to {self.folds - 1}, for folds is {self.folds}")
        return self


class HeldOutSplit(StrictModel):
    """Out of distribution: the test part is every patient whose images have certain values of a column of the manifest.

    Patients with images of both sides, or with an image whose value is not known, are removed.
    """

    kind: Literal["held_out"] = "held_out"
    column: str = Field(description="A column of the manifest, such as vendor, view, study_year, source")
    values: list[StrictStr | StrictInt | StrictFloat | StrictBool] | None = Field(default=None, min_length=1)
    after: float | int | None = Field(default=None, description="For a column of numbers: values above this, such as 2019")
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, description="Share of the patients that are not tested")

    @model_validator(mode="after")
    def _says_which(self) -> HeldOutSplit:
        if (self.values is None) == (self.after is None):
            raise ValueError("must have exactly one of values, after")
        return self


Split = PatientSplit | OfficialSplit | FoldSplit | HeldOutSplit


def _patient_unless_said(split: Any) -> Any:
    return {"kind": "patient", **split} if isinstance(split, dict) else split


class _Task(StrictModel):
    data: Name
    level: Literal["image", "patient"] = Field(default="image", description="What is scored: every image, or a patient at once")
    pooling: Literal["mean", "max"] = Field(default="mean", description="level patient: of the scores over a patient's images")
    split: Annotated[Split, Field(discriminator="kind"), BeforeValidator(_patient_unless_said)] = PatientSplit()


class BinaryTask(_Task):
    """Two classes, one of them the positive one, a label an image."""

    kind: Literal["binary"]
    target: Name
    positive: str
    negative: str | None = Field(
        default=None, description="null: every other class of the target; images of further classes are unlabelled"
    )

    @property
    def targets(self) -> list[str]:
        """The card's targets that are read."""
        return [self.target]

    @property
    def outputs(self) -> Outputs:
        """One: the positive class."""
        return Outputs(self.kind, (self.positive,))


class _ClassesTask(_Task):
    target: Name
    classes: list[str] | None = Field(
        default=None, min_length=2, description="null: all of the card's, in its order; images of further classes are unlabelled"
    )

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> _ClassesTask:
        if self.classes and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        return self

    @property
    def targets(self) -> list[str]:
        """The card's targets that are read."""
        return [self.target]

    @property
    def outputs(self) -> Outputs:
        """One a class.

        Raises:
            ValueError: the classes are not filled in; `Workspace.task` does it from the card.
        """
        if self.classes is None:
            raise ValueError("the task's classes are those of its card, which are not filled in here")
        return Outputs(self.kind, tuple(self.classes))


class MulticlassTask(_ClassesTask):
    """One of several classes an image."""

    kind: Literal["multiclass"]


class OrdinalTask(_ClassesTask):
    """One of several classes an image, which stand in an order from least to most, such as grades."""

    kind: Literal["ordinal"]


class MultilabelTask(_Task):
    """Several targets at once, each positive, negative or unknown."""

    kind: Literal["multilabel"]
    targets: list[Name] = Field(min_length=2)
    positive: str = Field(description="The class that is positive, the same for all targets")
    negative: str = Field(description="The class that is negative; any further class is unknown")

    @model_validator(mode="after")
    def _targets_are_distinct(self) -> MultilabelTask:
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets names a target twice")
        return self

    @property
    def outputs(self) -> Outputs:
        """One a target."""
        return Outputs(self.kind, tuple(self.targets))


class RegressionTask(_Task):
    """A number an image: a target of the card with `numeric: true`."""

    kind: Literal["regression"]
    target: Name

    @property
    def targets(self) -> list[str]:
        """The card's targets that are read."""
        return [self.target]

    @property
    def outputs(self) -> Outputs:
        """One: the target."""
        return Outputs(self.kind, (self.target,))


Task = Annotated[
    BinaryTask | MulticlassTask | MultilabelTask | OrdinalTask | RegressionTask,
    Field(discriminator="kind"),
]
