"""How small labelled sets are learnt from: the `finetune` block of a study file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from medssl.strict import StrictModel


def _budget(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 2
    if not (whole or value == "all" or (isinstance(value, float) and 0 < value <= 1)):
        raise ValueError(f"is {value!r}; allowed: a number of patients (2 or more), a share of them (0.1 is a tenth), or all")
    return value


Budget = Annotated[int | float | Literal["all"], BeforeValidator(_budget)]


class LinearSettings(StrictModel):
    """Logistic regression on frozen features."""

    budgets: list[Budget] | None = Field(default=None, min_length=1, description="null: finetune.budgets")
    seeds: int | None = Field(default=None, ge=1, le=100, description="null: finetune.seeds")
    regularization: list[Annotated[float, Field(gt=0)]] = Field(default=[1e-3, 1e-2, 0.1, 1.0, 10.0], min_length=1)


class FullSettings(StrictModel):
    """All weights are trained, with AdamW, and the epoch is chosen inside the label budget."""

    budgets: list[Budget] | None = Field(default=None, min_length=1, description="null: finetune.budgets")
    seeds: int | None = Field(default=None, ge=1, le=100, description="null: finetune.seeds")
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=32, ge=2)
    lr: float = Field(default=3e-4, gt=0)
    head_lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    views: dict[str, Any] = Field(default_factory=lambda: {"policy": "chest_xray", "geometry": {"crop_scale": [0.7, 1.0]}})


class FinetuneSettings(StrictModel):
    """Small labelled sets: for each arm, mode, label budget and draw of labels one fit, called a cell."""

    budgets: list[Budget] = Field(default=["all"], min_length=1, description="Patients (a whole number), a share of them, or all")
    seeds: int = Field(default=5, ge=1, le=100, description="Draws of labels")
    folds: int = Field(default=5, ge=2, le=10, description="Folds of the cross-validation inside a budget under 100 patients")
    linear: LinearSettings | None = LinearSettings()
    full: FullSettings | None = None

    @model_validator(mode="after")
    def _has_a_mode(self) -> FinetuneSettings:
        if self.linear is None and self.full is None:
            raise ValueError("linear and full are both null; keep at least one")
        return self
