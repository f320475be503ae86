"""A cell's scores as rows of a table of predictions, and what is chosen from those on validation: threshold and temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssl.errors import DataError
from medssl.evaluation.columns import label_columns, score_columns, threshold_columns
from medssl.evaluation.operating_point import choose_threshold
from medssl.evaluation.pooling import pool_patients
from medssl.evaluation.temperature import fit_temperature, why_no_temperature
from medssl.files import read_json, write_json
from medssl.stages.cell_context import CellContext
from medssl.stages.cells import Cell
from medssl.task import Outputs

OUTPUTS = "outputs.json"


def prediction_rows(
    context: CellContext, cell: Cell, facts: dict[str, Any], rows: np.ndarray, labels: np.ndarray, scores: np.ndarray, split: str
) -> pd.DataFrame:
    """One row an image; docs/finetuning.md has the columns.

    Args:
        facts: of the cell's receipt: budget, budget_patients, budget_images; thresholds and temperature where they are known yet.
        rows: positions in the manifest.
        labels: (n, T), NaN unknown.
        scores: (n, K).
        split: what is scored.
    """
    archive, outputs, n = context.archive, context.outputs, len(rows)
    columns: dict[str, Any] = {
        "arm": [cell.arm] * n,
        "run": cell.run,
        "mode": cell.mode,
        "budget": facts["budget"],
        "budget_patients": facts["budget_patients"],
        "budget_images": facts["budget_images"],
        "seed": cell.draw,
        "row_key": archive.manifest["row_key"].iloc[rows].to_numpy(),
        "patient": archive.manifest["patient"].iloc[rows].to_numpy(),
        "split": split,
    }
    columns |= dict(zip(label_columns(outputs), labels.T, strict=True))
    columns |= dict(zip(score_columns(outputs), scores.T, strict=True))
    columns |= {name: float(facts["thresholds"][name]) for name in threshold_columns(outputs) if "thresholds" in facts}
    if "temperature" in facts:
        columns["temperature"] = float(facts["temperature"])
    table = pd.DataFrame(columns)
    # A binary label without unknown ones is a whole number, as people and other programs expect it.
    if outputs.kind in ("binary", "multiclass", "ordinal"):
        table["label"] = table["label"].astype(np.int64)
    return table


def chosen_on_validation(context: CellContext, validation: pd.DataFrame) -> dict[str, Any]:
    """Threshold and temperature as facts of a cell, from its rows on validation; of a task at patient level from its patients.

    Returns:
        thresholds: column -> operating point, NaN for a target of a multilabel task whose validation rows lack a class. temperature, and
        temperature_reason where it is 1.0 because it could not be fitted; neither for a regression.

    Raises:
        DataError: a binary task's validation rows lack a class.
    """
    task, outputs = context.work.task, context.outputs
    if task.level == "patient":
        validation = pool_patients(validation, outputs, task.pooling)
    labels = validation[label_columns(outputs)].to_numpy(np.float64)
    scores = validation[score_columns(outputs)].to_numpy(np.float64)
    thresholds = {
        name: _threshold(labels[:, index], scores[:, index], outputs) for index, name in enumerate(threshold_columns(outputs))
    }
    facts: dict[str, Any] = {"thresholds": thresholds} if thresholds else {}
    if outputs.kind != "regression":
        facts["temperature"] = fit_temperature(scores, labels, outputs)
        if reason := why_no_temperature(scores, labels, outputs):
            facts["temperature_reason"] = reason
    return facts


def _threshold(labels: np.ndarray, scores: np.ndarray, outputs: Outputs) -> float:
    known = ~np.isnan(labels) & ~np.isnan(scores)
    try:
        return choose_threshold(labels[known].astype(np.int64), scores[known])
    except DataError:
        if outputs.kind == "binary":
            raise
        return float("nan")


def write_outputs(folder: Path, outputs: Outputs) -> None:
    """Write what the columns of a table of predictions mean beside it."""
    write_json(folder / OUTPUTS, {"kind": outputs.kind, "names": list(outputs.names)})


def read_outputs(folder: Path) -> Outputs:
    """What `write_outputs` wrote."""
    value = read_json(folder / OUTPUTS)
    return Outputs(value["kind"], tuple(value["names"]))
