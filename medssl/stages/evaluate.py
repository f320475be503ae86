"""evaluate: every cell scores the test patients. The only place where test labels are read; each reading is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssl.files import digest_of, read_json, replacing, write_json
from medssl.stages.cell_context import CellContext
from medssl.stages.cell_fit import score_cell
from medssl.stages.cells import Cell, grid
from medssl.stages.finetune import finetune
from medssl.stages.index import index
from medssl.stages.prediction_rows import prediction_rows, write_outputs
from medssl.stages.receipt import is_made_from, read_receipt, write_receipt
from medssl.stages.record import log_record
from medssl.stages.screen import bar, say
from medssl.stages.tracked import track_data
from medssl.stages.workspace import Workspace

PREDICTIONS = "predictions.parquet"
TEST = "test.parquet"
READS = "test_reads.json"


def evaluate(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False) -> None:
    """Score the test images with every cell that has not done so, and write predictions.parquet.

    Raises:
        UserError: see the errors of each part.
    """
    finetune(work, arms=arms)
    context, cells = CellContext(work), grid(work, index(work), work.chosen_arms(arms))
    inputs = {cell: context.inputs(cell) for cell in cells}
    todo = [cell for cell in cells if fresh or not is_made_from(_folder(work, cell), inputs[cell])]
    if not todo:
        say("evaluate", f"nothing has changed, {len(cells)} cells are scored")
    else:
        _score_cells(context, todo, inputs)
    predictions = work.folder / "evaluate" / PREDICTIONS
    made_from = {"cells": {cell.name: digest_of(inputs[cell]) for cell in cells}}
    if todo or not is_made_from(predictions.parent, made_from):
        parts = [pd.read_parquet(_folder(work, cell) / TEST) for cell in cells]
        with replacing(predictions) as temporary:
            pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)
        write_outputs(predictions.parent, context.outputs)
        write_receipt(predictions.parent, made_from)


def _folder(work: Workspace, cell: Cell) -> Path:
    return work.folder / "evaluate" / "cells" / cell.name


def _score_cells(context: CellContext, todo: list[Cell], inputs: dict[Cell, Any]) -> None:
    work, archive = context.work, context.archive
    test = archive.rows(source=work.task.data, split="test")
    test = test[archive.splits["label"].iloc[test].notna().to_numpy()]
    with work.open_log("evaluate", stage="evaluate", params={"cells": len(todo), "test_images": len(test)}) as log:
        track_data(work, log, archive.summary, [work.task.data], "test")
        log_record(work, archive, log)
        repeats = _count_reads(work, todo)  # before the first label is read: a reading that is cut short was one
        with bar("evaluate", len(todo)) as progress:
            for cell in todo:
                _write_scores(context, cell, test, inputs[cell])
                progress.advance()
        log.metrics({"evaluate/cells": len(todo), "evaluate/test_images": len(test), "evaluate/repeated_reads": repeats}, step=0)
    again = f"; {repeats} of them had been scored before, which the report says" if repeats else ""
    say("evaluate", f"{len(todo)} cells scored {len(test):,} test images{again}")


def _write_scores(context: CellContext, cell: Cell, test: np.ndarray, inputs: dict[str, Any]) -> None:
    folder, facts = _folder(context.work, cell), read_receipt(cell.folder(context.work))["facts"]
    scores = score_cell(context, cell, test)
    with replacing(folder / TEST) as temporary:
        prediction_rows(context, cell, facts, test, context.labels(test), scores, "test").to_parquet(temporary, index=False)
    write_receipt(folder, inputs)


def _count_reads(work: Workspace, cells: list[Cell]) -> int:
    """Add one reading to every cell's count, which no command resets; returns how many cells had been read before."""
    path = work.folder / "evaluate" / READS
    counts = read_json(path) if path.exists() else {}
    repeats = sum(cell.name in counts for cell in cells)
    for cell in cells:
        counts[cell.name] = counts.get(cell.name, 0) + 1
    write_json(path, counts)
    return repeats
