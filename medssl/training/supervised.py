"""Full fine-tuning on a label budget: all weights are trained, and the epoch is chosen inside the budget."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from medssl.augment.evaluate import eval_view
from medssl.data.batches import PixelSource
from medssl.data.budgets import LabelDraw
from medssl.models.encoder import Encoder
from medssl.models.weights import init_stream
from medssl.training.loop import Drawn, Policy, Run, ViewPlan, train
from medssl.training.optimizers import build_optimizer
from medssl.training.recipe import Recipe
from medssl.training.stop import StopFlag


class Classifier(nn.Module):
    """An encoder with one linear layer to one logit."""

    def __init__(self, encoder: Encoder, *, seed: int) -> None:
        """The head is drawn from the stream ("init", "classifier") of `seed`."""
        super().__init__()
        self.encoder = encoder
        with init_stream(seed, "classifier"):
            self.head = nn.Linear(encoder.feature_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N,) logits of images (N, 1, H, W) in [0, 1]."""
        return self.head(self.encoder(images)).squeeze(1)


@dataclass
class _Loss:
    loss: Tensor
    logs: dict[str, Tensor]


@dataclass(frozen=True)
class FullRecipe:
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


@dataclass
class FullFit:
    """A fine-tuned classifier and what was seen inside the budget."""

    model: Classifier  # its weights are a copy made at the chosen epoch
    epoch: int  # chosen, from 1
    validation_scores: np.ndarray  # (rows of the budget,) probability; NaN for rows that were never validated on
    validation_auroc: float
    curve: list[float]  # AUROC on validation after each epoch, mean over folds


def finetune(
    build: Callable[[], Classifier],
    pixels: Callable[[np.ndarray], PixelSource],
    draw: LabelDraw,
    recipe: FullRecipe,
    *,
    seed: int,
    stop: StopFlag,
    advance: Callable[[int], None],
) -> FullFit:
    """Fine-tune on one label draw.

    With one division the weights of the best epoch are copied and kept. With a cross-validation each fold's network gives a
    curve, the epoch that is best in their mean is chosen, and a new network is trained so far on the whole budget.

    Args:
        build: a new classifier with the arm's weights.
        pixels: the images at positions into `draw.rows`.
        seed: of views and order.
        advance: called with 1 after each epoch.
    """
    fits = [
        _fit(build(), pixels, draw, fit, validation, recipe, seed=seed + fold, stop=stop, advance=advance)
        for fold, (fit, validation) in enumerate(draw.divisions)
    ]
    curve = np.mean([aurocs for aurocs, _, _ in fits], axis=0)
    best = int(np.argmax(curve))  # the first of equals: the shorter training
    scores = np.full(len(draw.rows), np.nan)
    for (_, validation), (_, epoch_scores, _) in zip(draw.divisions, fits, strict=True):
        scores[validation] = epoch_scores[best]
    if not draw.cross_validated:
        model = build()
        model.load_state_dict(fits[0][2])
    else:
        model = build()
        everything = np.arange(len(draw.rows))
        run = _run(model, pixels, draw, everything, recipe, seed)
        run.last_epoch = best + 1
        run.on_epoch = lambda epoch, step: advance(1)
        train(run, stop)
        advance(recipe.epochs - run.last_epoch)
    return FullFit(model, best + 1, scores, float(curve[best]), curve.tolist())


def epochs_of(draw: LabelDraw, epochs: int) -> int:
    """How often `finetune` calls `advance` for a draw, for a progress bar."""
    return epochs * (len(draw.divisions) + (1 if draw.cross_validated else 0))


@torch.no_grad()
def predict(model: Classifier, source: PixelSource, recipe: FullRecipe) -> np.ndarray:
    """(N,) probability of the positive class, every image once, in order; the model is in eval mode within."""
    training = model.training
    model.eval()
    out = []
    for batch in source.batches(64):
        with torch.autocast(recipe.device.type, dtype=torch.bfloat16, enabled=recipe.precision == torch.bfloat16):
            logits = model(eval_view(batch.to(recipe.device), recipe.size))
        out.append(torch.sigmoid(logits.double()).cpu().numpy())
    model.train(training)
    return np.concatenate(out)


def _fit(
    model: Classifier,
    pixels: Callable[[np.ndarray], PixelSource],
    draw: LabelDraw,
    fit: np.ndarray,
    validation: np.ndarray,
    recipe: FullRecipe,
    *,
    seed: int,
    stop: StopFlag,
    advance: Callable[[int], None],
) -> tuple[list[float], list[np.ndarray], dict[str, Any]]:
    """Validation AUROC and scores after each epoch, and a copy of the weights of the best one."""
    run = _run(model, pixels, draw, fit, recipe, seed)
    held_out, labels = pixels(validation), draw.labels[validation, 0]
    aurocs: list[float] = []
    scores: list[np.ndarray] = []
    best_state: dict[str, Any] = {}

    def on_epoch(epoch: int, step: int) -> None:
        scores.append(predict(model, held_out, recipe))
        aurocs.append(float(roc_auc_score(labels, scores[-1])))
        if aurocs[-1] > max(aurocs[:-1], default=-1.0):
            best_state.update(copy.deepcopy(model.state_dict()))  # a copy: the network goes on changing
        advance(1)

    run.on_epoch = on_epoch
    train(run, stop)
    return aurocs, scores, best_state


def _run(
    model: Classifier,
    pixels: Callable[[np.ndarray], PixelSource],
    draw: LabelDraw,
    chosen: np.ndarray,
    recipe: FullRecipe,
    seed: int,
) -> Run:
    model.to(recipe.device)
    source, labels = pixels(chosen), torch.from_numpy(draw.labels[chosen, 0]).to(recipe.device, torch.float32)
    position = {int(row): place for place, row in enumerate(source.rows)}
    positives = float(labels.sum())
    weight = torch.where(labels == 1, len(labels) / (2 * positives), len(labels) / (2 * (len(labels) - positives)))

    def forward(module: nn.Module, drawn: Drawn) -> _Loss:
        at = torch.tensor([position[row] for row in drawn.pixels.row.tolist()], device=recipe.device)
        loss = F.binary_cross_entropy_with_logits(module(drawn.views[0]).float(), labels[at], weight=weight[at])
        return _Loss(loss, {})

    optimizer = Recipe(name="adamw", base_lr=recipe.lr, scaling="none", weight_decay=recipe.weight_decay)

    return Run(
        module=model,
        forward=forward,
        optimizer=build_optimizer(optimizer, _groups(model, recipe), recipe.lr),
        source=source,
        views=[ViewPlan(recipe.policy, recipe.size)],
        epochs=recipe.epochs,
        batch_size=min(recipe.batch_size, len(source)),
        seed=seed,
        device=recipe.device,
        precision=recipe.precision,
    )


def _groups(model: Classifier, recipe: FullRecipe) -> list[dict[str, Any]]:
    """No weight decay on biases and normalisation layers, as is usual with AdamW."""
    encoder = list(model.encoder.parameters())
    return [
        {"name": "encoder", "params": [p for p in encoder if p.ndim > 1]},
        {"name": "encoder_1d", "params": [p for p in encoder if p.ndim <= 1], "weight_decay": False},
        {"name": "head", "params": list(model.head.parameters()), "lr_scale": recipe.head_lr / recipe.lr},
    ]
