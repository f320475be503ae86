"""Fine-tuning a network on a label budget: epoch and rates are chosen inside the budget, and nothing outside of it is read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medssl.data.batches import PixelSource
from medssl.data.budgets import LabelDraw
from medssl.errors import DataError
from medssl.evaluation.primary import goodness, primary_metric
from medssl.seeds import numpy_generator
from medssl.task import Outputs
from medssl.training.classifier import Classifier, parameter_groups, predict
from medssl.training.loop import Drawn, Policy, Run, ViewPlan, train
from medssl.training.losses import build_loss, row_weights
from medssl.training.optimizers import build_optimizer
from medssl.training.recipe import Recipe
from medssl.training.stop import StopFlag

Build = Callable[[np.ndarray], Classifier]
"""A new classifier with the arm's weights, for the rows to fit on: positions into `draw.rows`."""
Pixels = Callable[[np.ndarray], PixelSource]
"""The images at positions into `draw.rows`."""


@dataclass(frozen=True)
class NetworkRecipe:
    """How to fine-tune; the same for every arm."""

    epochs: int
    batch_size: int
    lr: float
    head_lr: float
    weight_decay: float
    policy: Policy
    size: int  # px
    precision: torch.dtype
    device: torch.device
    patience: int | None = None  # epochs without a better one; None: all are trained
    loss: str = "cross_entropy"
    gamma: float = 2.0
    balanced: bool = True
    label_smoothing: float = 0.0
    decay: float | None = None  # of the rate from block to block; None: one rate

    def scaled(self, trial: Trial) -> NetworkRecipe:
        """With the rates of a trial."""
        return replace(
            self,
            lr=self.lr * trial.lr_factor,
            head_lr=self.head_lr * trial.lr_factor,
            weight_decay=self.weight_decay * trial.weight_decay_factor,
        )


@dataclass(frozen=True)
class Trial:
    """One point of the search."""

    lr_factor: float = 1.0
    weight_decay_factor: float = 1.0


def trials_of(seed: int, number: int, lr_factor: list[float], weight_decay_factor: list[float]) -> list[Trial]:
    """The points of a search: the recipe as it stands, then log-uniform draws that depend on `seed` and their number alone."""
    trials = [Trial()]
    for index in range(1, number):
        generator = numpy_generator(seed, "search", index)
        spans = [np.log(span) for span in (lr_factor, weight_decay_factor)]
        trials.append(Trial(*(float(np.exp(generator.uniform(*span))) for span in spans)))
    return trials


@dataclass
class NetworkFit:
    """A fine-tuned classifier and what was seen inside the budget."""

    model: Classifier  # its weights are a copy made at the chosen epoch
    epoch: int  # chosen, from 1
    trial: Trial  # chosen
    validation_scores: np.ndarray  # (rows of the budget, K); NaN for rows that were never validated on
    curve: list[float]  # primary metric on validation after each epoch of the chosen trial, mean over folds
    tried: list[float] = field(default_factory=list)  # the best of each trial


def fit_network(
    build: Build,
    pixels: Pixels,
    draw: LabelDraw,
    outputs: Outputs,
    recipe: NetworkRecipe,
    *,
    seed: int,
    stop: StopFlag,
    advance: Callable[[int], None] = lambda epochs: None,
    trials: list[Trial] | None = None,
) -> NetworkFit:
    """Fine-tune on one label draw.

    With one division the weights of the best epoch are copied and kept. With a cross-validation each fold's network gives a
    curve, the epoch that is best in their mean is chosen, and a new network is trained so far on the whole budget. Of several trials
    the one whose best epoch is the best is kept. By the primary metric of the task; of equals the earlier.

    Args:
        recipe: its patience is for one division; folds are trained to their end, for their mean is of equal lengths.
        seed: of views and order, the same for every trial.
        advance: called with how many epochs are done since.
        trials: None: the recipe as it stands.

    Raises:
        Stopped: a signal asked for it; nothing is kept of this fit.
        DataError: the metric cannot be told from the validation labels.
    """
    best: _Tried | None = None
    tried = []
    for trial in trials or [Trial()]:
        now = _try(build, pixels, draw, outputs, recipe.scaled(trial), trial, seed=seed, stop=stop, advance=advance)
        tried.append(now.value)
        if best is None or goodness(now.value, outputs) > goodness(best.value, outputs):
            best = now
    everything = np.arange(len(draw.rows))
    if draw.cross_validated:
        model = build(everything)
        run = _run(model, pixels, draw, everything, recipe.scaled(best.trial), seed)
        run.last_epoch = best.epoch
        run.on_epoch = lambda epoch, step: advance(1)
        train(run, stop)
        advance(recipe.epochs - run.last_epoch)
    else:
        model = build(draw.divisions[0][0])
        model.load_state_dict(best.state)
        model.to(recipe.device)
    return NetworkFit(model, best.epoch, best.trial, best.scores, best.curve, tried)


def epochs_of(draw: LabelDraw, epochs: int, trials: int = 1) -> int:
    """How far `fit_network` advances in all for a draw, for a progress bar."""
    return epochs * (trials * len(draw.divisions) + (1 if draw.cross_validated else 0))


@dataclass
class _Tried:
    trial: Trial
    epoch: int  # best, from 1
    value: float  # of the primary metric there
    curve: list[float]
    scores: np.ndarray  # (rows of the budget, K)
    state: dict[str, Any]  # weights at the best epoch of the one division; empty for a cross-validation


class _Enough(Exception):  # noqa: N818 - no error: patience has run out
    """Ends a training before its schedule does."""


def _try(
    build: Build,
    pixels: Pixels,
    draw: LabelDraw,
    outputs: Outputs,
    recipe: NetworkRecipe,
    trial: Trial,
    *,
    seed: int,
    stop: StopFlag,
    advance: Callable[[int], None],
) -> _Tried:
    alone = not draw.cross_validated
    recipe = recipe if alone else replace(recipe, patience=None)
    fits = [
        _fit(build(fit), pixels, draw, fit, validation, recipe, keep=alone, seed=seed + fold, stop=stop, advance=advance)
        for fold, (fit, validation) in enumerate(draw.divisions)
    ]
    values = np.array([metrics for metrics, _, _ in fits])
    told = ~np.isnan(values).any(axis=1)
    if not told.any():
        raise DataError(
            f"finetune: the validation images of draw {draw.seed} of {draw.budget} are of one class, so no epoch can be chosen; "
            "use a larger budget"
        )
    curve = values[told].mean(axis=0)
    best = int(np.argmax([goodness(value, outputs) for value in curve]))  # the first of equals: the shorter training
    scores = np.full((len(draw.rows), len(outputs.names)), np.nan)
    for (_, validation), (_, epoch_scores, _) in zip(draw.divisions, fits, strict=True):
        scores[validation] = epoch_scores[best]
    return _Tried(trial, best + 1, float(curve[best]), curve.tolist(), scores, fits[0][2] if alone else {})


def _fit(
    model: Classifier,
    pixels: Pixels,
    draw: LabelDraw,
    fit: np.ndarray,
    validation: np.ndarray,
    recipe: NetworkRecipe,
    *,
    keep: bool,
    seed: int,
    stop: StopFlag,
    advance: Callable[[int], None],
) -> tuple[list[float], list[np.ndarray], dict[str, Any]]:
    """Metric and scores on validation after each epoch, and, if asked to keep it, a copy of the weights of the best one."""
    run = _run(model, pixels, draw, fit, recipe, seed)
    held_out, labels, outputs = pixels(validation), draw.labels[validation], model.outputs
    metrics: list[float] = []
    scores: list[np.ndarray] = []
    best_state: dict[str, Any] = {}
    best = -1

    def on_epoch(epoch: int, step: int) -> None:
        nonlocal best
        scores.append(predict(model, held_out, size=recipe.size, device=recipe.device, precision=recipe.precision))
        metrics.append(primary_metric(scores[-1], labels, outputs))
        advance(1)
        if best < 0 or goodness(metrics[-1], outputs) > goodness(metrics[best], outputs):
            best = epoch
            if keep:
                best_state.update(copy.deepcopy(model.state_dict()))  # a copy: the network goes on changing
        elif recipe.patience is not None and epoch - best >= recipe.patience:
            raise _Enough

    run.on_epoch = on_epoch
    try:
        train(run, stop)
    except _Enough:
        advance(recipe.epochs - len(metrics))
    return metrics, scores, best_state


@dataclass
class _Loss:
    loss: Tensor
    logs: dict[str, Tensor]


def _run(model: Classifier, pixels: Pixels, draw: LabelDraw, chosen: np.ndarray, recipe: NetworkRecipe, seed: int) -> Run:
    outputs, labels = model.outputs, draw.labels[chosen]
    model.standardise(labels)
    model.to(recipe.device)
    source = pixels(chosen)
    position = {int(row): place for place, row in enumerate(source.rows)}
    if outputs.kind == "regression":
        labels = (labels - float(model.label_mean)) / float(model.label_std)
    weights = torch.from_numpy(row_weights(labels, outputs, recipe.balanced)).to(recipe.device, torch.float32)
    target = torch.from_numpy(labels).to(recipe.device, torch.float32)
    loss_of = build_loss(outputs, kind=recipe.loss, gamma=recipe.gamma, smoothing=recipe.label_smoothing)

    def forward(module: nn.Module, drawn: Drawn) -> _Loss:
        at = torch.tensor([position[row] for row in drawn.pixels.row.tolist()], device=recipe.device)
        return _Loss(loss_of(module(drawn.views[0]).float(), target[at], weights[at]), {})

    optimizer = Recipe(name="adamw", base_lr=recipe.lr, scaling="none", weight_decay=recipe.weight_decay)
    groups = parameter_groups(model, lr=recipe.lr, head_lr=recipe.head_lr, decay=recipe.decay)
    return Run(
        module=model,
        forward=forward,
        optimizer=build_optimizer(optimizer, groups, recipe.lr),
        source=source,
        views=[ViewPlan(recipe.policy, recipe.size)],
        epochs=recipe.epochs,
        batch_size=min(recipe.batch_size, len(source)),
        seed=seed,
        device=recipe.device,
        precision=recipe.precision,
    )
