"""How small labelled sets are learnt from: the `finetune` block of a study file. What each mode does: docs/finetuning.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from medssl.modes import MODES
from medssl.strict import StrictModel

NETWORK_MODES = ("full", "linear_then_full", "partial", "layer_decay")
"""Modes that train weights of the backbone."""


def _budget(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 2
    if not (whole or value == "all" or (isinstance(value, float) and 0 < value <= 1)):
        raise ValueError(f"is {value!r}; allowed: a number of patients (2 or more), a share of them (0.1 is a tenth), or all")
    return value


def _rising(span: list[float]) -> list[float]:
    if span[0] > span[1]:
        raise ValueError(f"is {span}, the first number must not be above the second")
    return span


def _seeds(value: Any) -> Any:
    each = list(value.values()) if isinstance(value, dict) and value else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) and 1 <= one <= MOST_SEEDS for one in each):
        raise ValueError(
            f"is {value!r}; allowed: a whole number from 1 to {MOST_SEEDS}, or one for each budget, such as {{10%: 3, all: 1}}"
        )
    return value


MOST_SEEDS = 100
Budget = Annotated[int | float | Literal["all"], BeforeValidator(_budget)]
Seeds = Annotated[int | dict[str, int], BeforeValidator(_seeds)]
Factors = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2), AfterValidator(_rising)]


def budget_name(budget: int | float | str) -> str:
    """How a budget is called in tables: `40` (patients), `10%`, `all`."""
    if isinstance(budget, float):
        return "all" if budget == 1.0 else f"{100 * budget:g}%"
    return str(budget)


class ModeSettings(StrictModel):
    """What every mode can say for itself."""

    budgets: list[Budget] | None = Field(default=None, min_length=1, description="null: finetune.budgets")
    seeds: Seeds | None = Field(default=None, description="null: finetune.seeds")


class LinearSettings(ModeSettings):
    """Regression on frozen features."""

    regularization: list[Annotated[float, Field(gt=0)]] = Field(
        default=[1e-3, 1e-2, 0.1, 1.0, 10.0], min_length=1, description="Values of C, of which one is chosen inside the budget"
    )


class KnnSettings(ModeSettings):
    """Nearest neighbours among the budget's images, on frozen features."""

    neighbours: list[Annotated[int, Field(ge=1)]] = Field(
        default=[5, 10, 20, 50], min_length=1, description="Values of k, of which one is chosen inside the budget"
    )
    temperature: float = Field(default=0.07, gt=0, description="A neighbour votes with exp(cosine similarity / temperature)")


class SearchSettings(StrictModel):
    """A search inside the label budget: the same number of trials and the same points for every arm, draw and budget."""

    trials: int = Field(default=3, ge=1, le=100, description="The first is the recipe as it stands; 1: no search")
    lr_factor: Factors = Field(default=[0.3, 3.0], description="Of lr and head_lr, log-uniform")
    weight_decay_factor: Factors = Field(default=[0.1, 10.0], description="Of weight_decay, log-uniform")


class FullSettings(ModeSettings):
    """All weights are trained, with AdamW, and the epoch is chosen inside the label budget."""

    epochs: int = Field(default=20, ge=1)
    patience: int | None = Field(
        default=5,
        ge=1,
        description="Epochs without a better one on validation after which it ends; null: never. A cross-validated budget trains all",
    )
    batch_size: int = Field(default=32, ge=2)
    lr: float = Field(default=3e-4, gt=0)
    head_lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    views: dict[str, Any] = Field(default_factory=lambda: {"policy": "chest_xray", "geometry": {"crop_scale": [0.7, 1.0]}})
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: float = Field(default=2.0, ge=0, description="Of the focal loss: how little an image counts that is nearly right")
    class_weights: Literal["balanced", "none"] = Field(default="balanced", description="balanced: every class weighs the same")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1, description="Share of a label that goes to all classes alike")
    search: SearchSettings = SearchSettings()


class LinearThenFullSettings(FullSettings):
    """The linear probe is fitted first and is the head from which all weights are trained (2202.10054)."""

    regularization: list[Annotated[float, Field(gt=0)]] = Field(
        default=[1e-3, 1e-2, 0.1, 1.0, 10.0], min_length=1, description="Of the probe, as in finetune.linear"
    )
    lr: float = Field(default=1e-4, gt=0)
    head_lr: float = Field(default=1e-4, gt=0, description="The head is there already")


class PartialSettings(FullSettings):
    """The last blocks of the backbone and the head are trained; what lies below them stays, its BatchNorm statistics included."""

    blocks: int = Field(default=3, ge=1)


class LayerDecaySettings(FullSettings):
    """All weights are trained, lower blocks more slowly (BEiT, 2106.08254; ELECTRA, 2003.10555)."""

    decay: float = Field(
        default=0.75, gt=0, le=1, description="The learning rate of a block, as a share of that of the one above it"
    )


class FinetuneSettings(StrictModel):
    """Small labelled sets: for each arm, mode, label budget and draw of labels one fit, called a cell."""

    budgets: list[Budget] = Field(default=["all"], min_length=1, description="Patients (a whole number), a share of them, or all")
    seeds: Seeds = Field(
        default=5,
        description="Draws of labels: a number, or one for each budget by its name (20, 10%, all), such as {10%: 3, all: 1}",
    )
    folds: int = Field(default=5, ge=2, le=10, description="Folds of the cross-validation inside a budget under 100 patients")
    parallel: int | None = Field(
        default=None, ge=1, le=64, description="Fits that share a GPU; null: as its memory allows, of a cluster's one"
    )
    linear: LinearSettings | None = LinearSettings()
    linear_recalibrated: LinearSettings | None = Field(
        default=None, description="The control: BatchNorm statistics from the training images instead of those that were loaded"
    )
    knn: KnnSettings | None = None
    full: FullSettings | None = None
    linear_then_full: LinearThenFullSettings | None = None
    partial: PartialSettings | None = None
    layer_decay: LayerDecaySettings | None = None

    @model_validator(mode="after")
    def _has_a_mode(self) -> FinetuneSettings:
        if not self.modes():
            raise ValueError(f"{', '.join(MODES)} are all null; keep at least one")
        return self

    @model_validator(mode="after")
    def _seeds_name_the_budgets(self) -> FinetuneSettings:
        shared = [mode for mode, own in self.modes().items() if own.seeds is None]
        self._check_seeds("seeds", self.seeds, shared)
        for mode, own in self.modes().items():
            self._check_seeds(f"{mode}.seeds", own.seeds, [mode])
        return self

    def _check_seeds(self, key: str, seeds: int | dict[str, int] | None, modes: list[str]) -> None:
        if not isinstance(seeds, dict):
            return
        names = list(dict.fromkeys(budget_name(budget) for mode in modes for budget in self.budgets_of(mode)))
        if missing := [name for name in names if name not in seeds]:
            raise ValueError(
                f"{key} does not name the budget {missing[0]}; it must name each of {', '.join(names)}, or be a number"
            )
        if modes and (unknown := [name for name in seeds if name not in names]):
            raise ValueError(f"{key} names '{unknown[0]}', which is no budget; allowed: {', '.join(names)}")

    def budgets_of(self, mode: str) -> list[int | float | str]:
        """The label budgets of a mode."""
        return getattr(self, mode).budgets or self.budgets

    def seeds_of(self, mode: str, budget: int | float | str) -> int:
        """Draws of labels of a mode at one of its budgets."""
        own = getattr(self, mode).seeds
        seeds = self.seeds if own is None else own
        return seeds[budget_name(budget)] if isinstance(seeds, dict) else seeds

    def modes(self) -> dict[str, ModeSettings]:
        """The settings of each mode that is done, in the order of MODES."""
        return {mode: settings for mode in MODES if (settings := getattr(self, mode)) is not None}
