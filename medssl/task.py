"""The question on the labelled data set: what is predicted, and how its patients are divided. The `task` block of a study file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

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
    """Patients drawn at random, stratified by label, images that are pixel-identical kept together."""

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
    collisions: Literal["refuse", "remove_from_training"] = "refuse"


def _patient_unless_said(split: Any) -> Any:
    return {"kind": "patient", **split} if isinstance(split, dict) else split


class BinaryTask(StrictModel):
    """Two classes, one of them the positive one, a label an image."""

    kind: Literal["binary"]
    data: Name
    target: Name
    positive: str
    negative: str | None = Field(
        default=None, description="null: every other class of the target; images of further classes are unlabelled"
    )
    split: Annotated[PatientSplit | OfficialSplit, Field(discriminator="kind"), BeforeValidator(_patient_unless_said)] = (
        PatientSplit()
    )
    level: Literal["image", "patient"] = Field(default="image", description="What is scored: every image, or a patient at once")
    pooling: Literal["mean", "max"] = Field(default="mean", description="level patient: of the scores over a patient's images")

    @property
    def outputs(self) -> Outputs:
        """One, the probability of the positive class."""
        return Outputs(self.kind, (self.positive,))
