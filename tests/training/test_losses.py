"""The losses of fine-tuning: torch's own where it has them, classes that weigh the same, unknown labels never read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medssl.task import Outputs
from medssl.training.losses import build_loss, row_weights

BINARY = Outputs("binary", ("ill",))
TWO_TARGETS = Outputs("multilabel", ("one", "two"))
THREE = Outputs("multiclass", ("a", "b", "c"))
GRADES = Outputs("ordinal", ("none", "mild", "severe"))


def logits(columns: int, rows: int = 8) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_binary_is_sigmoid_cross_entropy():
    labels = torch.tensor([[0.0], [1], [1], [0], [1], [0], [0], [1]])
    weights = torch.rand(8, 1) + 0.5
    loss = build_loss(BINARY)(logits(1), labels, weights)
    assert torch.isclose(loss, F.binary_cross_entropy_with_logits(logits(1), labels, weight=weights))


def test_multiclass_is_cross_entropy_with_smoothing():
    labels = torch.tensor([[0.0], [1], [2], [0], [1], [2], [2], [1]])
    loss = build_loss(THREE, smoothing=0.1)(logits(3), labels, torch.ones(8, 1))
    assert torch.isclose(loss, F.cross_entropy(logits(3), labels[:, 0].long(), label_smoothing=0.1))


@pytest.mark.parametrize("outputs", [BINARY, THREE], ids=lambda outputs: outputs.kind)
def test_focal_loss_by_hand(outputs):
    labels = torch.tensor([[0.0], [1], [1], [0], [1], [0], [0], [1]])
    values = logits(len(outputs.names))
    p = torch.sigmoid(values) if outputs is BINARY else values.softmax(dim=1)
    right = torch.where(labels == 1, p, 1 - p) if outputs is BINARY else p.gather(1, labels.long())
    expected = (-((1 - right) ** 2) * right.log()).mean()
    assert torch.isclose(build_loss(outputs, kind="focal", gamma=2.0)(values, labels, torch.ones(8, 1)), expected)
    plain = build_loss(outputs)(values, labels, torch.ones(8, 1))
    assert torch.isclose(build_loss(outputs, kind="focal", gamma=0.0)(values, labels, torch.ones(8, 1)), plain)


def test_ordinal_is_the_mean_cross_entropy_of_the_cuts():
    labels = torch.tensor([[0.0], [1], [2], [1]])
    above = torch.tensor([[0.0, 0], [1, 0], [1, 1], [1, 0]])
    loss = build_loss(GRADES)(logits(2, 4), labels, torch.ones(4, 1))
    assert torch.isclose(loss, F.binary_cross_entropy_with_logits(logits(2, 4), above))


def test_regression_is_smooth_l1():
    labels = torch.linspace(-3, 3, 8)[:, None]
    loss = build_loss(Outputs("regression", ("age",)))(logits(1), labels, torch.ones(8, 1))
    assert torch.isclose(loss, F.smooth_l1_loss(logits(1), labels))


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_an_unknown_label_moves_neither_loss_nor_gradient(kind):
    nan = float("nan")
    labels = torch.tensor([[0.0, 1], [1, nan], [nan, 0], [1, 1]])
    weights = torch.from_numpy(row_weights(labels.numpy(), TWO_TARGETS, False)).float()
    loss_of = build_loss(TWO_TARGETS, kind=kind, smoothing=0.1)
    values = logits(2, 4).requires_grad_()
    loss = loss_of(values, labels, weights)
    loss.backward()
    assert torch.isfinite(loss)
    assert (values.grad == 0).nonzero().tolist() == [[1, 1], [2, 0]]
    moved = values.detach().clone()
    moved[1, 1], moved[2, 0] = 50, -50
    assert torch.isclose(loss_of(moved, labels, weights), loss.detach())


def test_a_batch_without_a_known_label_gives_zero_and_no_gradient():
    values = logits(2, 4).requires_grad_()
    loss = build_loss(TWO_TARGETS)(values, torch.full((4, 2), float("nan")), torch.zeros(4, 2))
    loss.backward()
    assert loss.item() == 0
    assert (values.grad == 0).all()


def test_balanced_classes_weigh_the_same_a_target():
    labels = np.array([[1, 0], [0, 0], [0, np.nan], [0, 1], [0, 1], [1, 1]])
    weights = row_weights(labels, TWO_TARGETS, True)
    for column in range(2):
        known = ~np.isnan(labels[:, column])
        sides = [weights[known & (labels[:, column] == side), column].sum() for side in (0, 1)]
        assert np.isclose(*sides)
        assert np.isclose(weights[known, column].mean(), 1)
    assert weights[2, 1] == 0
    assert (row_weights(labels, TWO_TARGETS, False) == ~np.isnan(labels)).all()
    grades = np.array([[0.0], [0], [0], [1], [2], [2]])
    per_class = [row_weights(grades, GRADES, True)[grades == grade].sum() for grade in range(3)]
    assert np.allclose(per_class, 2)
