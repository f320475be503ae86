"""BYOL: the loss of the paper, the target network's schedule and its start."""

from __future__ import annotations

import math

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch import nn

from medssl.methods import Batch
from medssl.methods.byol import BYOL, BYOLSettings, distance
from medssl.methods.simsiam import negative_cosine


class TinyEncoder(nn.Sequential):
    feature_dim = 16

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(**settings) -> BYOL:
    torch.manual_seed(0)
    widths = {"projector_hidden": 24, "projector_dim": 8, "predictor_hidden": 20}
    return BYOL(BYOLSettings(**widths | settings), TinyEncoder()).train()


@pytest.fixture
def batch():
    return Batch(list(torch.rand(2, 16, 1, 12, 12, generator=torch.Generator().manual_seed(1))))


def test_negative_cosine_equals_lightly():
    p, z = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(negative_cosine(p, z), NegativeCosineSimilarity()(p, z), atol=1e-5, rtol=0)


def test_loss_is_the_sum_of_both_directions(batch):
    """Lightly's examples take half of the sum of negative cosines, the paper 2 - 2 cos of each: 4 + 4 times that."""
    method, oracle = tiny(), NegativeCosineSimilarity()
    loss = method(batch).loss
    assert 0 <= loss <= 8
    z, p = [], []
    for view in batch.views:
        projection = method.projector(method.encoder(view))
        p.append(method.predictor(projection))
        z.append(method.teacher(view)[1])
    torch.testing.assert_close(loss, 4 + 4 * 0.5 * (oracle(p[0], z[1]) + oracle(p[1], z[0])), atol=1e-5, rtol=0)
    squared = (nn.functional.normalize(p[0], dim=1) - nn.functional.normalize(z[1], dim=1)).square().sum(1).mean()
    torch.testing.assert_close(distance(p[0], z[1]), squared, atol=1e-5, rtol=0)


def test_loss_is_symmetric(batch):
    torch.testing.assert_close(tiny()(batch).loss, tiny()(Batch(batch.views[::-1])).loss)


def test_target_starts_as_the_online_network(batch):
    method = tiny()
    pairs = zip(method.teacher.copies, (method.encoder, method.projector), strict=True)
    for copied, online in pairs:
        for (name, value), (other, expected) in zip(copied.state_dict().items(), online.state_dict().items(), strict=True):
            assert name == other
            assert torch.equal(value, expected)
    torch.testing.assert_close(method.teacher(batch.views[0])[1], method(batch).z[0], atol=1e-6, rtol=0)


def test_gradient_reaches_all_but_the_target(batch):
    method = tiny()
    method(batch).loss.backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in method.named_parameters() if not name.startswith("teacher.")}


def test_momentum_rises_to_one():
    method = tiny(momentum=0.99)
    assert method.momentum(0, 100) == pytest.approx(0.99)
    assert method.momentum(50, 100) == pytest.approx(0.995)
    assert method.momentum(25, 100) == pytest.approx(1 - 0.01 * (math.cos(math.pi / 4) + 1) / 2)
    assert method.momentum(100, 100) == 1
    assert tiny(momentum=0.99, momentum_schedule="constant").momentum(99, 100) == 0.99


def test_target_follows_after_the_step_only(batch):
    method = tiny(momentum=0.5, momentum_schedule="constant")
    before = method.teacher.copies[0][0].weight.clone()
    method(batch).loss.backward()
    torch.optim.SGD(method.parameters(), lr=1.0).step()
    method.before_step(3, 10)
    assert torch.equal(method.teacher.copies[0][0].weight, before)
    method.after_step(3, 10)
    torch.testing.assert_close(method.teacher.copies[0][0].weight, (before + method.encoder[0].weight) / 2)


def test_heads_have_no_output_norm_and_no_output_bias():
    for head in (tiny().projector, tiny().predictor):
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert head[-1].bias is None
