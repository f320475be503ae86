"""What the grid of linear probes costs beside the feature passes that it lives on: 4 arms, 4 budgets, 5 draws, 5 values of C.

kermany_cxr at 64 px. The arms are ImageNet weights and three random networks, so nothing is pretrained: a probe's cost depends on its
features, not on where they come from. The target is at most 1.3 times the passes alone. `python benchmarks/grid.py [--work FOLDER]`
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import machine, report, save
from sklearn.metrics import roc_auc_score

from medssl.augment.evaluate import eval_view
from medssl.data.archive import Archive
from medssl.evaluation.linear_probe import fit_linear
from medssl.models.features import extract_features
from medssl.models.weights import initialise
from medssl.stages.arms import BATCH, Features, labelled_rows
from medssl.stages.cells import Cell, Draws, grid
from medssl.stages.encoders import new_encoder
from medssl.stages.index import index
from medssl.stages.workspace import Workspace, open_workspace

ARMS = {"imagenet": ("imagenet", 0), "random": ("random", 0), "random, seed 1": ("random", 1), "random, seed 2": ("random", 2)}
BUDGETS = "[0.01, 0.1, 0.5, all]"
STUDY = Path(__file__).parents[1] / "configs" / "kermany_cxr.yaml"
RESULT = Path(__file__).parent / "results" / "grid.json"
TARGET = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="where the archive is kept; left out: nowhere")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = open_workspace(
            STUDY, [f"work_dir={given.work or temporary}", f"finetune.budgets={BUDGETS}", "tracking.enabled=false"]
        )
        archive = index(work)
        rows = [measured(work, archive, name, *start) for name, start in ARMS.items()]
    passes, probes = sum(row["features, s"] for row in rows), sum(row["probes, s"] for row in rows)
    ratio = (passes + probes) / passes
    report("Linear-probe grid on kermany_cxr, 64 px", rows)
    print(
        f"\n4 passes {passes:.1f} s, {sum(row['cells'] for row in rows)} cells {probes:.1f} s: {ratio:.3f} times the passes alone"
    )
    busy = sum(row["probes, CPU s"] for row in rows) / sum(row["features, CPU s"] for row in rows) + 1
    print(f"in CPU time {busy:.3f} times")
    print(f"target: at most {TARGET}: {'reached' if ratio <= TARGET else 'missed'}")
    packages = ["torch", "numpy", "scipy", "scikit-learn"]
    save(
        RESULT,
        {
            "machine": machine(packages) | {"threads": torch.get_num_threads()},
            "arms": rows,
            "ratio": ratio,
            "ratio_cpu": busy,
            "target": TARGET,
        },
    )


def measured(work: Workspace, archive: Archive, name: str, init: str, seed: int) -> dict:
    """Seconds of one arm: its features, then every cell of its grid, the draws of labels and the scores of the test images included."""
    encoder = new_encoder(work)
    initialise(encoder, init, seed=seed)
    encoder.eval()
    images, size = labelled_rows(work, archive), work.study.encoder.input_size
    source = archive.pixels(images, work.study.encoder.window)
    began, busy = time.perf_counter(), time.process_time()
    values = extract_features(encoder, (eval_view(batch, size) for batch in source.batches(BATCH)))
    features_seconds, features_busy = time.perf_counter() - began, time.process_time() - busy
    features, test = Features(images, values), archive.rows(source=work.task.data, split="test")
    truth = archive.splits["label"].iloc[test].to_numpy(np.int64)
    cells = grid(work, archive, [next(iter(work.study.arms))])
    draws, seconds, aurocs = Draws(work, archive), {}, {}
    began, busy = time.perf_counter(), time.process_time()
    for cell in cells:
        start = time.perf_counter()
        auroc = roc_auc_score(truth, _scores(work, features, draws, cell, test))
        seconds[cell.budget] = seconds.get(cell.budget, 0) + time.perf_counter() - start
        aurocs.setdefault(cell.budget, []).append(auroc)
    row = {"arm": name, "images": len(images), "dim": values.shape[1], "cells": len(cells)}
    row |= {"features, s": round(features_seconds, 2), "probes, s": round(time.perf_counter() - began, 2)}
    # Of all cores: what counts where other programs take part of the machine's time.
    row |= {"features, CPU s": round(features_busy, 2), "probes, CPU s": round(time.process_time() - busy, 2)}
    return row | {f"{budget}: s (AUROC)": f"{seconds[budget]:.2f} ({np.mean(aurocs[budget]):.3f})" for budget in seconds}


def _scores(work: Workspace, features: Features, draws: Draws, cell: Cell, test: np.ndarray) -> np.ndarray:
    draw = draws.of(cell)
    fit = fit_linear(features.of(draw.rows), draw, work.task.outputs, work.study.finetune.linear.regularization)
    return fit.scores(features.of(test))[:, 0]


if __name__ == "__main__":
    main()
