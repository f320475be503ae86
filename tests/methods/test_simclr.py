"""SimCLR: NT-Xent, and a head as in the released code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import nn

from medssl.errors import StudyError
from medssl.methods import Batch, method_settings
from medssl.methods.simclr import SimCLR, SimCLRSettings, nt_xent


class TinyEncoder(nn.Sequential):
    feature_dim = 16

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(**settings) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(SimCLRSettings(**{"projector_hidden": 24, "projector_dim": 8} | settings), TinyEncoder()).train()


@pytest.fixture
def pair():
    return torch.randn(2, 10, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_equals_lightly(pair, temperature):
    expected = NTXentLoss(temperature=temperature)(*pair)
    torch.testing.assert_close(nt_xent(*pair, temperature)[0], expected, atol=1e-5, rtol=0)


def test_nt_xent_equals_an_explicit_softmax(pair):
    z = F.normalize(pair.flatten(0, 1), dim=1)
    losses, hits = [], []
    for i in range(20):
        similarity = {j: torch.exp(z[i] @ z[j] / 0.3) for j in range(20) if j != i}
        own = (i + 10) % 20
        losses.append(-torch.log(similarity[own] / sum(similarity.values())))
        hits.append(max(similarity, key=similarity.get) == own)
    loss, top1 = nt_xent(*pair, 0.3)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=0)
    assert float(top1) == pytest.approx(sum(hits) / 20)


def test_nt_xent_is_symmetric_and_its_gradient_is_finite(pair):
    first, second = (z.clone().requires_grad_() for z in pair)
    loss = nt_xent(first, second, 0.1)[0]
    torch.testing.assert_close(loss, nt_xent(second, first, 0.1)[0])
    loss.backward()
    assert first.grad.isfinite().all()
    assert second.grad.abs().sum() > 0


def test_both_views_share_batch_statistics():
    method = tiny()
    views = torch.rand(2, 8, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    output = method(Batch(list(views)))
    joint = method.projector(method.encoder(views.flatten(0, 1)))
    torch.testing.assert_close(output.z, joint.view(2, 8, 8))
    torch.testing.assert_close(output.z.mean(dim=(0, 1)), torch.zeros(8), atol=1e-5, rtol=0)


def test_head_ends_with_a_norm_that_scales_and_does_not_shift():
    assert [type(layer) for layer in tiny(projector_layers=3).projector] == [
        *[nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2,
        nn.Linear,
        nn.BatchNorm1d,
    ]
    last = tiny().projector[-1]
    assert last.bias is None
    assert last.weight.shape == (8,)
    assert tiny(projector_hidden="features").projector[0].out_features == 16


def test_hidden_width_is_checked():
    with pytest.raises(StudyError, match="projector_hidden"):
        method_settings({"name": "simclr", "projector_hidden": 1})


def test_loss_is_in_float32_under_autocast(pair):
    expected = nt_xent(*pair, 0.1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(nt_xent(*pair, 0.1)[0], expected, atol=1e-6, rtol=0)
