"""The arms' frozen features, to be looked at: is it the label that they are arranged by, or the scanner?"""

from __future__ import annotations

import numpy as np

from medssl.report.embedding_figure import Embeddings, embeddings_of
from medssl.stages.arms import labelled_rows
from medssl.stages.cell_context import CellContext
from medssl.stages.cells import Cell
from medssl.task import Outputs

GROUPINGS = ("vendor", "view", "sex", "source")
"""Columns of the manifest that points are coloured by, besides the label, where they have two values or more."""


def embeddings(context: CellContext, cells: list[Cell]) -> list[Embeddings]:
    """The frozen features of the first pretraining run of each arm, of every labelled image; none where no cell uses features."""
    found = []
    frozen = {cell.arm: cell for cell in reversed(cells) if cell.run == 0 and cell.mode in ("linear", "knn")}
    rows = labelled_rows(context.work, context.archive)
    part = context.archive.manifest.iloc[rows]
    groups = {name: part[name].tolist() for name in GROUPINGS if part[name].nunique() > 1}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        if arm in frozen:
            features = np.asarray(context.features(frozen[arm]).of(rows), np.float64)
            labels = _label_names(context.labels(rows), context.outputs)
            patients = part["patient"].to_numpy()
            found.append(embeddings_of(arm, features, labels, groups, patients, context.work.study.seed))
    return found


def _label_names(labels: np.ndarray, outputs: Outputs) -> list[str | None]:
    """What each image is, in words; of several targets which are positive, of a number its quarter."""
    if outputs.kind == "regression":
        edges = np.nanquantile(labels[:, 0], [0.25, 0.5, 0.75])
        names = [
            f"below {edges[0]:.3g}",
            f"{edges[0]:.3g} to {edges[1]:.3g}",
            f"{edges[1]:.3g} to {edges[2]:.3g}",
            f"{edges[2]:.3g} up",
        ]
        return [None if np.isnan(value) else names[int(np.searchsorted(edges, value, side="right"))] for value in labels[:, 0]]
    if outputs.kind == "multilabel":
        return [_positive_targets(row, outputs.names) for row in labels]
    names = (f"not {outputs.names[0]}", outputs.names[0]) if outputs.kind == "binary" else outputs.names
    return [None if np.isnan(value) else names[int(value)] for value in labels[:, 0]]


def _positive_targets(row: np.ndarray, names: tuple[str, ...]) -> str | None:
    if np.isnan(row).all():
        return None
    positive = [name for name, value in zip(names, row, strict=True) if value == 1]
    return "several" if len(positive) > 1 else positive[0] if positive else "none"
