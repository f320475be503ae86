"""finetune: small labelled sets. A cell for each arm, mode, label budget and draw; reads no label outside of its budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from medssl.augment.policies import build_policy
from medssl.data.archive import Archive
from medssl.data.budgets import LabelDraw
from medssl.data.splits import assert_disjoint
from medssl.evaluation.linear_probe import LinearFit, fit_linear_probe
from medssl.evaluation.operating_point import choose_threshold
from medssl.files import digest_of, replacing
from medssl.seeds import derive
from medssl.stages.arms import ArmEncoder, Features, arm_features, feature_inputs, load_arm
from medssl.stages.cells import Cell, Draws, grid
from medssl.stages.devices import choose_device, choose_precision
from medssl.stages.index import index
from medssl.stages.pretrain import pretrain
from medssl.stages.receipt import is_made_from, write_receipt
from medssl.stages.record import log_record
from medssl.stages.screen import Bar, bar, say
from medssl.stages.tracked import track_data
from medssl.stages.views import check_fit, chosen_settings
from medssl.stages.workspace import Workspace
from medssl.training.stop import StopFlag, Stopped, stop_on_signals
from medssl.training.supervised import Classifier, FullFit, FullRecipe, epochs_of
from medssl.training.supervised import finetune as finetune_fully

HEAD = "head.safetensors"
VALIDATION = "validation.parquet"


def finetune(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False) -> None:
    """Fit every cell that is not there yet.

    Raises:
        Stopped: a signal asked for it; finished cells stay.
        UserError: see the errors of each part.
    """
    _ = work.task  # said before days of pretraining
    pretrain(work, arms=arms)
    archive = index(work)
    chosen, device = work.chosen_arms(arms), choose_device(work.study)
    if work.study.finetune.full:
        labelled = archive.rows(split="train", source=work.task.data)
        check_fit(archive, labelled, chosen_settings(work, "finetune"), "finetune")
    draws = Draws(work, archive)
    cells = grid(work, chosen)
    for cell in cells:
        draws.of(cell)  # a budget that cannot be drawn is said before any work
    with stop_on_signals() as stop:
        made = 0
        for name in chosen:
            arm = load_arm(work, archive, name, 0, device)
            mine = [cell for cell in cells if cell.arm == name]
            inputs = {cell: cell_inputs(work, archive, arm, cell, draws.of(cell)) for cell in mine}
            todo = [cell for cell in mine if fresh or not is_made_from(cell.folder(work), inputs[cell])]
            made += len(todo)
            if todo:
                _fit_arm(work, archive, arm, todo, inputs, draws, device, stop)
    if made:
        say("finetune", f"{made} cells fitted, {len(cells) - made} were there")
    else:
        say("finetune", f"nothing has changed, {len(cells)} cells are there")


def cell_inputs(work: Workspace, archive: Archive, arm: ArmEncoder, cell: Cell, draw: LabelDraw) -> dict[str, Any]:
    """What a cell depends on."""
    settings = getattr(work.study.finetune, cell.mode)
    return {
        "features": feature_inputs(work, archive, arm),
        "mode": settings.model_dump(mode="json", exclude={"budgets", "seeds"}),
        "seed": work.study.seed,
        "draw": digest_of([archive.manifest["exact_hash"].iloc[draw.rows].tolist(), draw.labels.tolist(), len(draw.divisions)]),
    }


def recipe_of(work: Workspace, device: torch.device) -> FullRecipe:
    """The study's recipe for full fine-tuning."""
    full = work.study.finetune.full
    return FullRecipe(
        epochs=full.epochs,
        batch_size=full.batch_size,
        lr=full.lr,
        head_lr=full.head_lr,
        weight_decay=full.weight_decay,
        policy=build_policy(chosen_settings(work, "finetune")),
        size=work.study.encoder.input_size,
        precision=choose_precision(work.study, device),
        device=device,
    )


def new_classifier(work: Workspace, arm: ArmEncoder) -> Classifier:
    """The arm's encoder with a head that is the same for every arm at the start."""
    return Classifier(arm.copy(), seed=work.study.seed)


def _fit_arm(
    work: Workspace,
    archive: Archive,
    arm: ArmEncoder,
    todo: list[Cell],
    inputs: dict,
    draws: Draws,
    device: torch.device,
    stop: StopFlag,
) -> None:
    params = {
        "arm": arm.arm,
        "weights": arm.source,
        "encoder_digest": arm.sha256,
        "finetune": work.study.finetune.model_dump(mode="json"),
    }
    with work.open_log(f"finetune-{arm.arm}", stage="finetune", params=params, tags={"medssl.arm": arm.arm}) as log:
        track_data(work, log, archive.summary, [work.task.data], "fine-tuning")
        log_record(work, archive, log, arm)
        features = arm_features(work, archive, arm, device) if any(cell.mode == "linear" for cell in todo) else None
        total = sum(1 if cell.mode == "linear" else epochs_of(draws.of(cell), work.study.finetune.full.epochs) for cell in todo)
        with bar(f"finetune {arm.arm}", total) as progress:
            for number, cell in enumerate(todo):
                if stop.signum is not None:
                    raise Stopped(stop.signum, number, len(todo))
                draw = draws.of(cell)
                assert_disjoint(archive.splits, archive.manifest["exact_hash"], draw.rows, archive.near)
                if cell.mode == "linear":
                    auroc = _fit_linear(work, archive, cell, draw, features, inputs[cell])
                    progress.advance()
                else:
                    auroc = _fit_full(work, archive, arm, cell, draw, inputs[cell], device, stop, progress)
                log.metrics({f"finetune/{_metric_name(cell)}/validation_auroc": auroc}, step=cell.draw)


def _metric_name(cell: Cell) -> str:
    return f"{cell.mode}/{cell.name.split('/')[2]}"


def _fit_linear(work: Workspace, archive: Archive, cell: Cell, draw: LabelDraw, features: Features, inputs: dict) -> float:
    fit = fit_linear_probe(features.of(draw.rows), draw, work.study.finetune.linear.regularization)
    folder = cell.folder(work)
    probe = {
        name: torch.from_numpy(np.atleast_1d(getattr(fit.probe, name)).copy()) for name in ("mean", "scale", "weight", "bias")
    }
    _write_tensors(folder / HEAD, probe)
    _finish(folder, archive, draw, fit, inputs, regularization=fit.regularization, losses=fit.losses)
    return fit.validation_auroc


def _fit_full(
    work: Workspace,
    archive: Archive,
    arm: ArmEncoder,
    cell: Cell,
    draw: LabelDraw,
    inputs: dict,
    device: torch.device,
    stop: StopFlag,
    progress: Bar,
) -> float:
    fit = finetune_fully(
        lambda: new_classifier(work, arm),
        lambda positions: archive.pixels(draw.rows[positions], work.study.encoder.window),
        draw,
        recipe_of(work, device),
        seed=derive(work.study.seed, "finetune", cell.draw),
        stop=stop,
        advance=progress.advance,
    )
    folder = cell.folder(work)
    _write_tensors(folder / HEAD, {name: tensor.cpu().contiguous() for name, tensor in fit.model.state_dict().items()})
    _finish(folder, archive, draw, fit, inputs, epoch=fit.epoch, curve=fit.curve)
    return fit.validation_auroc


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors))


def _finish(folder: Path, archive: Archive, draw: LabelDraw, fit: LinearFit | FullFit, inputs: dict, **facts: Any) -> None:
    seen = ~np.isnan(fit.validation_scores)
    part = archive.manifest.iloc[draw.rows[seen]]
    validation = pd.DataFrame(
        {
            "row_key": part["row_key"].to_numpy(),
            "patient": part["patient"].to_numpy(),
            "label": draw.labels[seen, 0].astype(np.int64),
            "score": fit.validation_scores[seen],
        }
    )
    with replacing(folder / VALIDATION) as temporary:
        validation.to_parquet(temporary, index=False)
    write_receipt(
        folder,
        inputs,
        budget=draw.budget,
        budget_patients=draw.patients,
        budget_images=len(draw.rows),
        budget_positives=int(draw.labels.sum()),
        cross_validated=draw.cross_validated,
        threshold=choose_threshold(draw.labels[seen, 0], fit.validation_scores[seen]),
        validation_auroc=fit.validation_auroc,
        **facts,
    )
