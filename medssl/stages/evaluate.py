"""evaluate: every cell scores the test patients. The only place where test labels are read; each reading is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from medssl.data.archive import Archive
from medssl.evaluation.linear_probe import LinearProbe
from medssl.files import digest_of, read_json, replacing, write_json
from medssl.stages.arms import ArmEncoder, Features, arm_features, load_arm
from medssl.stages.cells import Cell, Draws, grid
from medssl.stages.devices import choose_device
from medssl.stages.finetune import HEAD, cell_inputs, finetune, new_classifier, recipe_of
from medssl.stages.index import index
from medssl.stages.receipt import is_made_from, read_receipt, write_receipt
from medssl.stages.record import log_record
from medssl.stages.screen import bar, say
from medssl.stages.tracked import track_data
from medssl.stages.workspace import Workspace
from medssl.training.supervised import predict

PREDICTIONS = "predictions.parquet"
TEST = "test.parquet"
READS = "test_reads.json"


def evaluate(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False) -> None:
    """Score the test images with every cell that has not done so, and write predictions.parquet.

    Raises:
        UserError: see the errors of each part.
    """
    finetune(work, arms=arms)
    archive, device = index(work), choose_device(work.study)
    draws, cells = Draws(work, archive), grid(work, work.chosen_arms(arms))
    encoders = {name: load_arm(work, archive, name, 0, device) for name in work.chosen_arms(arms)}
    inputs = {cell: cell_inputs(work, archive, encoders[cell.arm], cell, draws.of(cell)) for cell in cells}
    todo = [cell for cell in cells if fresh or not is_made_from(_folder(work, cell), inputs[cell])]
    if not todo:
        say("evaluate", f"nothing has changed, {len(cells)} cells are scored")
    else:
        _score_cells(work, archive, encoders, todo, inputs, device)
    predictions = work.folder / "evaluate" / PREDICTIONS
    made_from = {"cells": {cell.name: digest_of(inputs[cell]) for cell in cells}}
    if todo or not is_made_from(predictions.parent, made_from):
        parts = [pd.read_parquet(_folder(work, cell) / TEST) for cell in cells]
        with replacing(predictions) as temporary:
            pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)
        write_receipt(predictions.parent, made_from)


def _folder(work: Workspace, cell: Cell) -> Path:
    return work.folder / "evaluate" / "cells" / cell.name


def _score_cells(
    work: Workspace,
    archive: Archive,
    encoders: dict[str, ArmEncoder],
    todo: list[Cell],
    inputs: dict[Cell, Any],
    device: torch.device,
) -> None:
    test = archive.rows(source=work.task.data, split="test")
    test = test[archive.splits["label"].iloc[test].notna().to_numpy()]
    with work.open_log("evaluate", stage="evaluate", params={"cells": len(todo), "test_images": len(test)}) as log:
        track_data(work, log, archive.summary, [work.task.data], "test")
        log_record(work, archive, log)
        repeats = _count_reads(work, todo)  # before the first label is read: a reading that is cut short was one
        with bar("evaluate", len(todo)) as progress:
            for cell in todo:
                scores = _score(work, archive, encoders[cell.arm], cell, test, device)
                with replacing(_folder(work, cell) / TEST) as temporary:
                    _rows(work, archive, cell, test, scores).to_parquet(temporary, index=False)
                write_receipt(_folder(work, cell), inputs[cell])
                progress.advance()
        log.metrics({"evaluate/cells": len(todo), "evaluate/test_images": len(test), "evaluate/repeated_reads": repeats}, step=0)
    again = f"; {repeats} of them had been scored before, which the report says" if repeats else ""
    say("evaluate", f"{len(todo)} cells scored {len(test):,} test images{again}")


def _score(work: Workspace, archive: Archive, arm: ArmEncoder, cell: Cell, rows: np.ndarray, device: torch.device) -> np.ndarray:
    tensors = safetensors.torch.load_file(cell.folder(work) / HEAD)
    if cell.mode == "linear":
        parts = {name: tensor.numpy() for name, tensor in tensors.items()}
        probe = LinearProbe(parts["mean"], parts["scale"], parts["weight"], float(parts["bias"][0]))
        features: Features = arm_features(work, archive, arm, device)
        return probe.scores(features.of(rows))
    model = new_classifier(work, arm)
    model.load_state_dict(tensors)
    return predict(model.to(device), archive.pixels(rows, work.study.encoder.window), recipe_of(work, device))


def _rows(work: Workspace, archive: Archive, cell: Cell, rows: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    facts: dict[str, Any] = read_receipt(cell.folder(work))["facts"]
    return pd.DataFrame(
        {
            "arm": cell.arm,
            "mode": cell.mode,
            "budget": facts["budget"],
            "budget_patients": facts["budget_patients"],
            "budget_images": facts["budget_images"],
            "seed": cell.draw,
            "row_key": archive.manifest["row_key"].iloc[rows].to_numpy(),
            "patient": archive.manifest["patient"].iloc[rows].to_numpy(),
            "label": archive.splits["label"].iloc[rows].to_numpy(np.int64),
            "score": scores,
            "threshold": facts["threshold"],
            "split": "test",
        }
    )


def _count_reads(work: Workspace, cells: list[Cell]) -> int:
    """Add one reading to every cell's count, which no command resets; returns how many cells had been read before."""
    path = work.folder / "evaluate" / READS
    counts = read_json(path) if path.exists() else {}
    repeats = sum(cell.name in counts for cell in cells)
    for cell in cells:
        counts[cell.name] = counts.get(cell.name, 0) + 1
    write_json(path, counts)
    return repeats
