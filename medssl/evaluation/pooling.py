"""From images to patients: one score a patient, for tasks whose question is about the patient."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.errors import DataError
from medssl.evaluation.columns import label_columns, score_columns
from medssl.evaluation.predictions import CELL
from medssl.task import Outputs


def pool_patients(predictions: pd.DataFrame, outputs: Outputs, how: str = "mean") -> pd.DataFrame:
    """A table of predictions with one row a patient and cell; `row_key` becomes the patient's key.

    Scores are pooled by `how`, mean or max, over the patient's images; those of several classes are divided by their sum again
    after a max, so that they stay probabilities. Regression is pooled by the mean alone. A patient is positive (binary,
    multi-label) where one of the images is; a label that is unknown for all images stays unknown; a number is the mean over
    the images. Everything else is that of the patient's first image: it is one of the cell.

    Raises:
        ValueError: `how` is none of the two, or max for regression.
        DataError: images of one patient have different classes (several classes, ordinal).
    """
    if how not in ("mean", "max") or (how == "max" and outputs.kind == "regression"):
        raise ValueError(f"how must be 'mean' or, but for regression, 'max', got {how!r}")
    labels, scores = label_columns(outputs), score_columns(outputs)
    cell = [name for name in CELL if name in predictions.columns]
    groups = predictions.groupby([*cell, "patient"], sort=False, observed=True)
    if outputs.kind in ("multiclass", "ordinal"):
        several = groups["label"].nunique() > 1
        if several.any():
            patients = len(set(several[several].index.get_level_values("patient")))
            raise DataError(
                f"predictions: {patients} patients have images of different classes, so they have no label of their own: "
                "score images (task.level: image), or leave those patients out"
            )
    pooled = groups.first().reset_index()
    pooled[scores] = groups[scores].agg(how).to_numpy(np.float64)
    pooled[labels] = groups[labels].agg("mean" if outputs.kind == "regression" else "max").to_numpy()
    if how == "max" and outputs.kind in ("multiclass", "ordinal"):
        pooled[scores] = pooled[scores].div(pooled[scores].sum(axis=1), axis=0)
    pooled["row_key"] = pooled["patient"]
    return pooled[list(predictions.columns)]
