"""One cell: fitted on its label budget, and asked for scores of other images. Both work in any process that has the work folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from medssl.augment.policies import build_policy
from medssl.data.budgets import LabelDraw
from medssl.evaluation.knn import Neighbours, fit_knn
from medssl.evaluation.linear_probe import LinearHead, fit_head, fit_linear
from medssl.evaluation.primary import PRIMARY, primary_metric
from medssl.files import replacing
from medssl.finetuning import FullSettings, KnnSettings, LinearSettings
from medssl.seeds import derive
from medssl.stages.cell_context import CellContext
from medssl.stages.cells import Cell
from medssl.stages.devices import choose_precision
from medssl.stages.prediction_rows import chosen_on_validation, prediction_rows, write_outputs
from medssl.stages.receipt import is_made_from, write_receipt
from medssl.stages.views import finetune_views
from medssl.training.classifier import Classifier, predict
from medssl.training.stop import StopFlag
from medssl.training.supervised import NetworkRecipe, epochs_of, fit_network, trials_of

HEAD = "head.safetensors"
VALIDATION = "validation.parquet"
Advance = Callable[[int], None]


@dataclass
class _Fitted:
    tensors: dict[str, torch.Tensor]
    validation_scores: np.ndarray  # (rows of the budget, K); NaN where there was none
    facts: dict[str, Any]


def fit_cell(context: CellContext, cell: Cell, *, stop: StopFlag | None = None, advance: Advance = lambda n: None) -> float:
    """Fit one cell and write its head, its validation predictions, their meaning, and last its receipt.

    Reads the labels of the cell's budget and no others.

    Args:
        advance: called with how much of `work_of` is done since.

    Returns:
        The primary metric on validation, also a fact of the receipt.

    Raises:
        Stopped: a signal asked for it; nothing is kept of this cell.
        DataError: a held-out image is among the rows to fit on, or the validation rows lack a class.
    """
    draw, outputs, settings = context.draw(cell), context.outputs, getattr(context.work.study.finetune, cell.mode)
    if isinstance(settings, LinearSettings):
        fitted = _linear(context, cell, draw, settings)
        advance(1)
    elif isinstance(settings, KnnSettings):
        fitted = _knn(context, cell, draw, settings)
        advance(1)
    else:
        fitted = _network(context, cell, draw, settings, stop or StopFlag(), advance)
    value = primary_metric(fitted.validation_scores, draw.labels, outputs)
    facts = {"budget": draw.budget, "budget_patients": draw.patients, "budget_images": len(draw.rows)}
    seen = ~np.isnan(fitted.validation_scores).all(axis=1)
    parts = draw.rows[seen], draw.labels[seen], fitted.validation_scores[seen], "budget"
    facts |= chosen_on_validation(context, prediction_rows(context, cell, facts, *parts))
    facts |= {"cross_validated": draw.cross_validated, "validation": {"metric": PRIMARY[outputs.kind], "value": value}}
    folder = cell.folder(context.work)
    with replacing(folder / HEAD) as temporary:
        temporary.write_bytes(safetensors.torch.save(fitted.tensors))
    with replacing(folder / VALIDATION) as temporary:
        prediction_rows(context, cell, facts, *parts).to_parquet(temporary, index=False)
    write_outputs(folder, outputs)
    write_receipt(folder, context.inputs(cell), **facts, **fitted.facts)
    return value


def is_fitted(context: CellContext, cell: Cell) -> bool:
    """Whether the cell is there, made from today's inputs."""
    return is_made_from(cell.folder(context.work), context.inputs(cell))


def work_of(context: CellContext, cell: Cell) -> int:
    """How far `fit_cell` advances in all: epochs of a network, 1 for everything else."""
    settings = getattr(context.work.study.finetune, cell.mode)
    if not isinstance(settings, FullSettings):
        return 1
    return epochs_of(context.draws.of(cell), settings.epochs, settings.search.trials)


def score_cell(context: CellContext, cell: Cell, rows: np.ndarray) -> np.ndarray:
    """(len(rows), K) scores of images, at positions in the manifest, by a cell that has been fitted. Reads no label of them."""
    work, outputs = context.work, context.outputs
    settings = getattr(work.study.finetune, cell.mode)
    if isinstance(settings, FullSettings):
        device = context.device
        model = network_of(context, cell).to(device)
        source = context.archive.pixels(rows, work.study.encoder.window)
        precision = choose_precision(work.study, device)
        return predict(model, source, size=work.study.encoder.input_size, device=device, precision=precision)
    features, tensors = context.features(cell), _tensors(cell.folder(work))
    if isinstance(settings, LinearSettings):
        return _head_of(tensors, context).scores(features.of(rows))
    draw = context.draws.of(cell)
    budget = features.of(draw.rows)
    unit = budget / np.maximum(np.linalg.norm(budget, axis=1, keepdims=True), 1e-12)
    voters = Neighbours(unit, draw.labels, outputs, int(tensors["k"]), settings.temperature)
    return voters.scores(features.of(rows))


def network_of(context: CellContext, cell: Cell) -> Classifier:
    """A fitted cell as one network, in eval mode: of a mode that trains weights, or a linear probe on top of its encoder.

    Raises:
        ValueError: neighbours, and probes on other BatchNorm statistics than the arm's, are no such network.
    """
    if cell.mode in ("knn", "linear_recalibrated"):
        raise ValueError(f"{cell.mode} is no network")
    tensors = _tensors(cell.folder(context.work))
    model = Classifier(context.encoder(cell).copy(), context.outputs, seed=context.work.study.seed)
    if cell.mode == "linear":
        model.set_head(_head_of(tensors, context))
    else:
        model.load_state_dict(tensors)
    return model.eval()


def _head_of(tensors: dict[str, torch.Tensor], context: CellContext) -> LinearHead:
    return LinearHead(tensors["weight"].numpy(), tensors["bias"].numpy(), context.outputs)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / HEAD)


def _linear(context: CellContext, cell: Cell, draw: LabelDraw, settings: LinearSettings) -> _Fitted:
    fit = fit_linear(context.features(cell).of(draw.rows), draw, context.outputs, settings.regularization)
    tensors = {"weight": torch.from_numpy(fit.head.weight.copy()), "bias": torch.from_numpy(fit.head.bias.copy())}
    facts = {"regularization": list(fit.regularization), "losses": fit.losses, "unfit": fit.unfit}
    return _Fitted(tensors, fit.validation_scores, facts)


def _knn(context: CellContext, cell: Cell, draw: LabelDraw, settings: KnnSettings) -> _Fitted:
    features = context.features(cell).of(draw.rows)
    fit = fit_knn(features, draw, context.outputs, settings.neighbours, settings.temperature)
    # The voters are rows of the features that are kept already: another copy a cell would be gigabytes.
    return _Fitted({"k": torch.tensor(fit.k)}, fit.validation_scores, {"k": fit.k, "losses": fit.losses})


def _network(
    context: CellContext, cell: Cell, draw: LabelDraw, settings: FullSettings, stop: StopFlag, advance: Advance
) -> _Fitted:
    study, search = context.work.study, settings.search
    fit = fit_network(
        _builder(context, cell, draw, settings),
        lambda positions: context.archive.pixels(draw.rows[positions], study.encoder.window),
        draw,
        context.outputs,
        _recipe(context, cell, settings),
        seed=derive(study.seed, "finetune", cell.draw),
        stop=stop,
        advance=advance,
        trials=trials_of(study.seed, search.trials, search.lr_factor, search.weight_decay_factor),
    )
    facts: dict[str, Any] = {"epoch": fit.epoch, "curve": fit.curve}
    facts["search"] = {
        "trials": search.trials,
        "lr": settings.lr * fit.trial.lr_factor,
        "head_lr": settings.head_lr * fit.trial.lr_factor,
        "weight_decay": settings.weight_decay * fit.trial.weight_decay_factor,
        "tried": fit.tried,
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in fit.model.state_dict().items()}
    return _Fitted(tensors, fit.validation_scores, facts)


def _builder(context: CellContext, cell: Cell, draw: LabelDraw, settings: FullSettings) -> Callable[[np.ndarray], Classifier]:
    """Makes networks with the arm's weights and a head that is the same for every arm at the start, or the arm's probe."""
    arm, outputs, seed = context.encoder(cell), context.outputs, context.work.study.seed
    if cell.mode == "linear_then_full":
        features = context.features(cell).of(draw.rows)
        chosen = fit_linear(features, draw, outputs, settings.regularization).regularization

    def build(positions: np.ndarray) -> Classifier:
        model = Classifier(arm.copy(), outputs, seed=seed)
        if cell.mode == "partial":
            model.freeze_below(settings.blocks)
        elif cell.mode == "linear_then_full":
            labels = draw.labels[positions]
            model.standardise(labels)
            # A head of these rows alone: one that has seen the validation rows would be judged by what it knows.
            model.set_head(fit_head(features[positions], labels, outputs, chosen))
        return model

    return build


def _recipe(context: CellContext, cell: Cell, settings: FullSettings) -> NetworkRecipe:
    study = context.work.study
    return NetworkRecipe(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        head_lr=settings.head_lr,
        weight_decay=settings.weight_decay,
        policy=build_policy(finetune_views(context.work, cell.mode)),
        size=study.encoder.input_size,
        precision=choose_precision(study, context.device),
        device=context.device,
        patience=settings.patience,
        loss=settings.loss,
        gamma=settings.gamma,
        balanced=settings.class_weights == "balanced",
        label_smoothing=settings.label_smoothing,
        decay=settings.decay if cell.mode == "layer_decay" else None,
    )
