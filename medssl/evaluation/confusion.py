"""What was called what."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from medssl.evaluation.predictions import Cell, TestSet

COLUMNS = {
    "arm": "the arm",
    "mode": "how it was trained",
    "budget": "label of the budget",
    "target": "the output of a binary or multi-label task; else `class`",
    "truth": "the true class: its name, or positive | negative",
    "called": "the class that was called",
    "images": "test images, mean over draws and runs",
    "share": "of the images of that true class; empty where there are none",
}


def confusion_table(test: TestSet) -> pd.DataFrame:
    """One row for every pair of true and called class, columns COLUMNS; images of unknown label are left out.

    Binary and multi-label call positive at the operating point, others the class of the highest probability. Regression has none,
    and a target without an operating point in one of the draws or runs has none there.
    """
    rows = []
    for block, arm in itertools.product(test.blocks, test.arms):
        cells = [Cell(arm, block.mode, block.budget, seed, run) for run in test.runs_of(arm) for seed in block.seeds]
        for target, names, truth, called in _calls(test, cells):
            known = ~np.isnan(truth)
            codes = truth[known].astype(np.int64) * len(names) + called[:, known]
            counts = np.stack([np.bincount(row, minlength=len(names) ** 2) for row in codes]).mean(axis=0)
            counts = counts.reshape(len(names), len(names))
            for i, j in itertools.product(range(len(names)), repeat=2):
                share = counts[i, j] / counts[i].sum() if counts[i].sum() else np.nan
                rows.append((arm, block.mode, block.budget, target, names[i], names[j], counts[i, j], share))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _calls(test: TestSet, cells: list[Cell]):
    """(target, names of the classes, (N,) truth, (cells, N) index called) of every table that the task has."""
    outputs = test.outputs
    if outputs.kind in ("multiclass", "ordinal"):
        yield "class", outputs.names, test.labels[:, 0], np.stack([test.scores[cell].argmax(axis=1) for cell in cells])
    elif outputs.kind != "regression":
        for i, name in enumerate(outputs.names):
            if any(np.isnan(test.thresholds[cell][i]) for cell in cells):
                continue
            called = [(test.scores[cell][:, i] >= test.thresholds[cell][i]).astype(np.int64) for cell in cells]
            yield name, ("negative", "positive"), test.labels[:, i], np.stack(called)
