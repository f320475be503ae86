"""AUROC and accuracy are those of MedMNIST's own Evaluator, on its label files, so that published figures can stand beside ours."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from scipy.special import expit, softmax

from medssl.evaluation.scorers import scorer_of
from medssl.task import Outputs


@pytest.fixture
def evaluator(tmp_path, monkeypatch):
    """The package's module; importing it makes a folder in the home of whoever imports it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("medmnist")]:
        monkeypatch.delitem(sys.modules, name)
    pytest.importorskip("medmnist")
    return importlib.import_module("medmnist.evaluator")


def _ours(outputs, labels, scores):
    scorer = scorer_of(outputs, labels.astype(float), scores, np.full(labels.shape[1], 0.5))
    return dict(zip(scorer.names, scorer.evaluate(np.ones((1, len(labels))))[0], strict=True))


@pytest.mark.parametrize("flag", ["pneumoniamnist", "breastmnist"])
def test_on_its_files(evaluator, flag, shared_data):
    root = shared_data / "medmnist"
    judge = evaluator.Evaluator(flag, "test", root=str(root))
    rng = np.random.default_rng(0)
    scores = expit(judge.labels + rng.normal(size=judge.labels.shape)).round(2)  # ties, and some at exactly 0.5
    found, ours = judge.evaluate(scores), _ours(Outputs("binary", ("yes",)), judge.labels, scores)
    assert ours["auroc"] == pytest.approx(found.AUC, abs=1e-12)
    assert ours["accuracy_at_half"] == pytest.approx(found.ACC, abs=1e-12)


def test_of_several_classes_and_targets(evaluator):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, (400, 1))
    scores = softmax(rng.normal(size=(400, 5)) + np.eye(5)[labels[:, 0]], axis=1)
    ours = _ours(Outputs("multiclass", tuple("abcde")), labels, scores)
    assert ours["auroc"] == pytest.approx(evaluator.getAUC(labels, scores, "multi-class"), abs=1e-12)
    assert ours["accuracy"] == pytest.approx(evaluator.getACC(labels, scores, "multi-class"), abs=1e-12)
    ours = _ours(Outputs("ordinal", tuple("abcde")), labels, scores)
    assert ours["auroc"] == pytest.approx(evaluator.getAUC(labels, scores, "ordinal-regression"), abs=1e-12)
    assert ours["accuracy"] == pytest.approx(evaluator.getACC(labels, scores, "ordinal-regression"), abs=1e-12)
    labels = rng.integers(0, 2, (300, 14))
    scores = expit(labels + rng.normal(size=labels.shape)).round(2)
    ours = _ours(Outputs("multilabel", tuple("abcdefghijklmn")), labels, scores)
    task = "multi-label, binary-class"
    assert ours["auroc"] == pytest.approx(evaluator.getAUC(labels, scores, task), abs=1e-12)
    assert ours["accuracy_at_half"] == pytest.approx(evaluator.getACC(labels, scores, task), abs=1e-12)
