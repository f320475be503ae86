"""Fine-tuning on a budget: every kind of task, the best epoch is a copy, early stopping, the same search for all, a stop that stops."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.batches import PixelSource
from medssl.data.budgets import LabelDraw
from medssl.errors import DataError
from medssl.evaluation.linear_probe import fit_head
from medssl.evaluation.primary import primary_metric
from medssl.models.encoder import build_encoder
from medssl.task import Outputs
from medssl.training import supervised
from medssl.training.classifier import Classifier, parameter_groups, predict
from medssl.training.stop import StopFlag, Stopped
from medssl.training.supervised import NetworkRecipe, Trial, epochs_of, fit_network, trials_of

OUTPUTS = {
    "binary": Outputs("binary", ("ill",)),
    "multiclass": Outputs("multiclass", ("a", "b", "c")),
    "multilabel": Outputs("multilabel", ("one", "two")),
    "ordinal": Outputs("ordinal", ("none", "mild", "severe")),
    "regression": Outputs("regression", ("age",)),
}
ROWS = 22


def labels_of(kind: str) -> np.ndarray:
    place = np.arange(ROWS, dtype=np.float64)
    labels = {
        "binary": place % 2,
        "multiclass": place % 3,
        "ordinal": place % 3,
        "regression": 40 + place,
        "multilabel": np.stack([place % 2, np.where(place % 5 == 0, np.nan, place // 2 % 2)], axis=1),
    }[kind]
    return labels.reshape(ROWS, -1)


def draw(kind: str = "binary", folds: int = 1) -> LabelDraw:
    fold = np.arange(ROWS) // 2 % max(folds, 3)
    divisions = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
    return LabelDraw("all", 0, ROWS, np.arange(ROWS), labels_of(kind), np.arange(ROWS), divisions, folds > 1)


def recipe(**changes) -> NetworkRecipe:
    settings = {"epochs": 3, "batch_size": 6, "lr": 1e-3, "head_lr": 1e-2, "weight_decay": 0.01, "size": 32} | changes
    policy = build_policy(policy_settings({"policy": "chest_xray"}))
    return NetworkRecipe(policy=policy, precision=torch.float32, device=torch.device("cpu"), **settings)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder("resnet18")


@pytest.fixture
def fit(encoder, source):
    import copy

    def run(kind="binary", folds=1, stop=None, trials=None, advance=lambda n: None, prepare=lambda model: None, **changes):
        def build(positions):
            model = Classifier(copy.deepcopy(encoder), OUTPUTS[kind], seed=0)
            prepare(model)
            return model

        def pixels(positions):
            return PixelSource(source.store, frame_of(source), source.rows[positions], "auto")

        settings = recipe(**changes)
        return fit_network(
            build,
            pixels,
            draw(kind, folds),
            OUTPUTS[kind],
            settings,
            seed=1,
            stop=stop or StopFlag(),
            advance=advance,
            trials=trials,
        )

    return run


def frame_of(source: PixelSource):
    return source.manifest_for_tests


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_every_kind_is_fitted_and_scored_on_validation_rows_alone(fit, kind):
    found = fit(kind, epochs=2)
    _, validation = draw(kind).divisions[0]
    seen = ~np.isnan(found.validation_scores).any(axis=1)
    assert np.flatnonzero(seen).tolist() == validation.tolist()
    assert found.validation_scores.shape == (ROWS, len(OUTPUTS[kind].names))
    assert len(found.curve) == 2
    value = primary_metric(found.validation_scores, draw(kind).labels, OUTPUTS[kind])
    assert value == pytest.approx(found.curve[found.epoch - 1])
    if kind in ("multiclass", "ordinal"):
        assert np.allclose(found.validation_scores[seen].sum(axis=1), 1)
    if kind == "regression":
        assert (np.abs(found.validation_scores[seen] - 51) < 40).all()  # in the label's unit
