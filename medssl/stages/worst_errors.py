"""The worst errors of each arm with what its network looked at."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medssl.augment.evaluate import eval_view
from medssl.errors import StudyError
from medssl.finetuning import budget_name
from medssl.models.gradcam import grad_cam
from medssl.report.worst import WorstImage, worst_rows
from medssl.stages.cell_context import CellContext
from medssl.stages.cell_fit import network_of
from medssl.stages.cells import Cell
from medssl.stages.screen import warn
from medssl.training.classifier import Classifier

LOOKED_AT = ("full", "linear_then_full", "layer_decay", "partial", "linear", "knn", "linear_recalibrated")
"""The mode whose errors are shown: the first of these that the study has. The last two are no networks and have no maps."""
NO_NETWORK = ("knn", "linear_recalibrated")


def worst_errors(context: CellContext, cells: list[Cell], predictions: pd.DataFrame) -> list[WorstImage]:
    """The most confident errors of each arm in one mode at its largest budget, with Grad-CAM of its first run's first draw.

    Images that may show text or a face (the manifest's `flags`) are left out. Of a task at patient level the errors are those of
    single images too: a pooled score has no picture.

    Args:
        cells: of the study.
        predictions: evaluate's table, one row an image and cell.
    """
    mode = next(name for name in LOOKED_AT if any(cell.mode == name for cell in cells))
    rows = predictions[predictions["mode"] == mode]
    budget, manifest = rows.loc[rows["budget_patients"].idxmax(), "budget"], context.archive.manifest
    flagged = set(manifest.loc[manifest["flags"].fillna("") != "", "row_key"])
    errors = worst_rows(rows[rows["budget"] == budget], context.outputs, flagged)
    place = pd.Series(np.arange(len(manifest)), index=manifest["row_key"])
    found: list[WorstImage] = []
    for arm, own in errors.groupby("arm", sort=False):
        cell = next(each for each in cells if (each.arm, each.mode, budget_name(each.budget)) == (arm, mode, budget))
        images = _images(context, place[own["row_key"]].to_numpy())
        overlays = _overlays(context, cell, images, own) if mode not in NO_NETWORK else None
        for number, row in enumerate(own.to_dict("records")):
            overlay = None if overlays is None else overlays[number]
            texts = (str(row["label"]), str(row["said"]), float(row["score"]))
            found.append(WorstImage(str(arm), row["row_key"], images[number].cpu().numpy().squeeze(), overlay, *texts))
    return found


def _images(context: CellContext, rows: np.ndarray) -> Tensor:
    """(n, C, H, W) as the network sees them, in the order of `rows`."""
    source, size = context.archive.pixels(rows, context.work.study.encoder.window), context.work.study.encoder.input_size
    return torch.cat([eval_view(batch.to(context.device), size) for batch in source.batches(64)])


def _overlays(context: CellContext, cell: Cell, images: Tensor, errors: pd.DataFrame) -> list[np.ndarray] | None:
    model = network_of(context, cell).to(context.device)
    try:
        return [
            grad_cam(model.encoder, weight_of(model, row["output"], row["sign"]), image[None])[0].cpu().numpy()
            for row, image in zip(errors.to_dict("records"), images, strict=True)
        ]
    except (StudyError, ValueError) as problem:
        warn(f"compare: no Grad-CAM of {cell.arm}: {problem}")
        return None


def weight_of(model: Classifier, output: int, sign: int) -> Tensor:
    """(D,) weight of the logit that speaks for an output (`sign` 1) or against it (-1).

    An ordinal class lies above the cut below it and below the cut above it, so its evidence is the difference of the two.
    """
    weight = model.head.weight.detach()
    if model.outputs.kind != "ordinal":
        return sign * weight[output]
    none = torch.zeros_like(weight[0])
    below = weight[output - 1] if output > 0 else none
    above = weight[output] if output < len(weight) else none
    return sign * (below - above)
