"""Every mode of fine-tuning on one small study: its files, its scores, and cells that other processes fit."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from medssl.errors import StudyError
from medssl.modes import MODES
from medssl.stages.cell_context import CellContext, check_modes
from medssl.stages.cell_fit import HEAD, VALIDATION, fit_cell, is_fitted, network_of, score_cell
from medssl.stages.cells import Cell, grid
from medssl.stages.encoders import new_encoder
from medssl.stages.evaluate import evaluate
from medssl.stages.prediction_rows import read_outputs
from medssl.stages.receipt import read_receipt
from medssl.stages.workspace import open_workspace

NETWORK = {"epochs": 2, "budgets": [8], "seeds": 1, "batch_size": 8, "search": {"trials": 1}}
SETTINGS = {
    "linear": {},
    "linear_recalibrated": {},
    "knn": {"neighbours": [1, 3, 100]},
    "full": NETWORK | {"loss": "focal", "search": {"trials": 2}},
    "linear_then_full": NETWORK,
    "partial": NETWORK | {"blocks": 2},
    "layer_decay": NETWORK,
}
ARMS = {"random": {"init": "random"}, "imagenet": {"init": "imagenet"}}


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_study):
    """A study that has been evaluated in every mode, without pretraining."""
    finetune = {"budgets": [8, "all"], "seeds": 2, **SETTINGS}
    path = write_study(tmp_path_factory.mktemp("modes"), arms=ARMS, finetune=finetune, tracking={"enabled": False})
    evaluate(open_workspace(path))
    return path


@pytest.fixture(scope="module")
def context(study):
    return CellContext.open(study)


def test_every_mode_scores_every_test_image_once(study, context):
    folder = open_workspace(study).folder / "evaluate"
    predictions = pd.read_parquet(folder / "predictions.parquet")
    test = context.archive.rows(source="archive", split="test")
    test = context.archive.splits.iloc[test]
    test = set(test.loc[test["label"].notna(), "row_key"])
    cells = predictions.groupby(["mode", "arm", "run", "budget", "seed"])
    assert all(set(cell["row_key"]) == test and len(cell) == len(test) for _, cell in cells)
    counts = predictions.drop_duplicates(["mode", "arm", "run", "budget", "seed"])["mode"].value_counts().to_dict()
    # Linear probes and neighbours: two draws of 8 patients, and one cell for the whole pool.
    assert counts == {mode: 2 * 3 if mode in ("linear", "linear_recalibrated", "knn") else 2 for mode in MODES}
    assert predictions["score"].between(0, 1).all()
    assert predictions["threshold"].between(0, 1).all()
    assert (predictions["temperature"] > 0).all()
    assert set(predictions["run"]) == {0}
    assert read_outputs(folder) == context.outputs


def test_what_was_chosen_stands_in_the_receipt(context):
    facts = {
        cell.mode: read_receipt(cell.folder(context.work))["facts"] for cell in grid(context.work, context.archive, ["imagenet"])
    }
    assert facts["linear"]["regularization"][0] in (1e-3, 1e-2, 0.1, 1.0, 10.0)
    assert facts["knn"]["k"] >= 1
    assert facts["full"]["search"]["trials"] == len(facts["full"]["search"]["tried"]) == 2
    assert facts["partial"]["search"]["lr"] == 3e-4
    assert all(fact["validation"]["metric"] == "auroc" for fact in facts.values())


def test_every_arm_is_tried_at_the_same_points(context):
    tried = []
    for arm in ARMS:
        cell = Cell(arm, 0, "full", 8, 0)
        tried.append(context.inputs(cell)["mode"]["search"])
    assert tried[0] == tried[1]


def test_validation_predictions_are_those_of_the_budget(context):
    for cell in grid(context.work, context.archive, ["random"]):
        table = pd.read_parquet(cell.folder(context.work) / VALIDATION)
        inside = set(context.archive.splits["row_key"].iloc[context.draws.of(cell).rows])
        assert set(table["row_key"]) <= inside
        assert set(table["split"]) == {"budget"}
        assert {"arm", "mode", "run", "threshold", "temperature", "score", "label"} <= set(table.columns)


def test_neighbours_keep_no_copy_of_the_features(context):
    tensors = safetensors.numpy.load_file(Cell("imagenet", 0, "knn", 8, 0).folder(context.work) / HEAD)
    assert set(tensors) == {"k"}


def test_the_control_has_features_of_its_own(context):
    folder = context.work.folder / "finetune" / "features" / "imagenet" / "0"
    loaded, recalibrated = (np.load(folder / kind / "features.npy") for kind in ("as_is", "recalibrated"))
    assert loaded.shape == recalibrated.shape
    assert np.abs(loaded - recalibrated).max() > 0.1


def test_partial_fine_tuning_leaves_the_lower_blocks_as_they_were(context):
    cell = Cell("imagenet", 0, "partial", 8, 0)
    before, after = context.encoder(cell).encoder.state_dict(), network_of(context, cell).encoder.state_dict()
    changed = {name for name, tensor in before.items() if not bool((tensor == after[name]).all())}
    assert any("blocks.6.0" in name for name in changed)
    assert not any("conv_stem" in name or "blocks.0" in name or "blocks.4" in name for name in changed)


def test_a_probe_as_one_network_scores_as_the_probe(context):
    from medssl.training.classifier import predict

    cell, rows = Cell("imagenet", 0, "linear", "all", 0), context.archive.rows(source="archive", split="test")[:5]
    source = context.archive.pixels(rows, context.work.study.encoder.window)
    scores = predict(network_of(context, cell), source, size=32, device=context.device)
    assert np.allclose(scores, score_cell(context, cell, rows), atol=1e-3)


def _fit(context: CellContext, cell: Cell, said) -> None:
    fit_cell(context, cell)
    said.put(cell.name)


def test_two_processes_fit_cells_of_one_arm_and_compute_its_features_once(context, tmp_path):
    cells = [Cell("random", 0, "linear", 8, 0), Cell("random", 0, "knn", 8, 1)]
    before = {cell: (cell.folder(context.work) / HEAD).read_bytes() for cell in cells}
    work = context.work.folder
    for cell in cells:
        shutil.rmtree(cell.folder(context.work))
    shutil.rmtree(work / "finetune" / "features" / "random")
    spawn = multiprocessing.get_context("spawn")
    said = spawn.Queue()
    processes = [spawn.Process(target=_fit, args=(context, cell, said)) for cell in cells]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0, 0]
    assert {cell: (cell.folder(context.work) / HEAD).read_bytes() for cell in cells} == before
    assert all(is_fitted(context, cell) for cell in cells)
    receipt = work / "finetune" / "features" / "random" / "0" / "as_is" / "receipt.json"
    assert json.loads(receipt.read_text())["facts"]["shape"][1] == 1280


def test_a_pickled_context_is_a_study_and_no_data(context):
    context.features(Cell("imagenet", 0, "linear", 8, 0))
    assert len(pickle.dumps(context)) < 100_000


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("encoder.batch_norm=recalibrated", "finetune.linear_recalibrated: encoder.batch_norm is recalibrated"),
        ("encoder.backbone=timm/vit_tiny_patch16_224", "has no batch normalisation to recalibrate"),
    ],
)
def test_a_control_that_is_none_is_refused(study, override, line):
    work = open_workspace(study, [override])
    with pytest.raises(StudyError, match=line):
        check_modes(work, new_encoder(work))
