"""Barlow Twins: the loss, and rates of their own for biases and normalisation."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from torch import nn

from medssl.errors import StudyError
from medssl.methods import Batch, method_settings
from medssl.methods.barlow_twins import BarlowTwins, BarlowTwinsSettings, correlation_terms
from medssl.training.optimizers import build_optimizer


class TinyEncoder(nn.Sequential):
    feature_dim = 16

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(**settings) -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(BarlowTwinsSettings(**{"projector_widths": [24, 20]} | settings), TinyEncoder()).train()


@pytest.fixture
def batch():
    return Batch(list(torch.rand(2, 16, 1, 12, 12, generator=torch.Generator().manual_seed(1))))


@pytest.mark.parametrize("weight", [0.0051, 1.0])
def test_loss_equals_lightly(weight):
    z1, z2 = torch.randn(2, 32, 10, generator=torch.Generator().manual_seed(0))
    z2 = z1 + 0.5 * z2
    invariance, redundancy = correlation_terms(z1, z2)
    expected = BarlowTwinsLoss(lambda_param=weight)(z1, z2)
    torch.testing.assert_close(invariance + weight * redundancy, expected, atol=1e-5, rtol=0)


def test_terms_by_hand():
    z1, z2 = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    c = torch.stack([torch.stack([torch.corrcoef(torch.stack([a, b]))[0, 1] for b in z2.T]) for a in z1.T])
    invariance, redundancy = correlation_terms(z1, z2)
    torch.testing.assert_close(invariance, (1 - c.diagonal()).square().sum(), atol=1e-4, rtol=0)
    torch.testing.assert_close(redundancy, c.square().sum() - c.diagonal().square().sum(), atol=1e-4, rtol=0)
    assert correlation_terms(z1, z1)[0] < 1e-6


def test_a_channel_that_does_not_vary_gives_no_nan():
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    z[:, 1] = 2.0
    assert all(term.isfinite() for term in correlation_terms(z, z))


def test_output_is_the_projection_before_the_norm_of_the_loss(batch):
    method = tiny()
    output = method(batch)
    torch.testing.assert_close(output.z[0], method.projector(method.encoder(batch.views[0])))
    terms = correlation_terms(*output.z)
    torch.testing.assert_close(output.loss, terms[0] + 0.0051 * terms[1])
    assert float(output.logs["invariance"]) == pytest.approx(float(terms[0]), rel=1e-5)
    assert method.dim == 20
    assert all(layer.bias is None for layer in method.projector if isinstance(layer, nn.Linear))


def test_biases_and_norms_have_a_rate_of_their_own():
    """Of the paper at batch 256: weights 0.2, biases and BN 0.0048, the latter without decay and without adaptation."""
    method = tiny(encoder_lr_scale=0.5)
    groups = method.parameter_groups()
    optimizer = build_optimizer(method.recipe, groups, method.recipe.peak_lr(256))
    found = {one["name"]: (one["lr"], one["weight_decay"], one["adaptation"]) for one in optimizer.param_groups}
    assert found == {
        "encoder": (pytest.approx(0.1), 1e-6, True),
        "encoder_bias_and_norm": (pytest.approx(0.0024), 0.0, False),
        "projector": (pytest.approx(0.2), 1e-6, True),
        "projector_bias_and_norm": (pytest.approx(0.0048), 0.0, False),
    }
    assert [one["lr_scale"] for one in method.parameter_groups()] == [one["lr_scale"] for one in groups]


@pytest.mark.parametrize("widths", [[], [1], [8, 0]])
def test_wrong_widths_are_one_line(widths):
    with pytest.raises(StudyError, match="projector_widths") as caught:
        method_settings({"name": "barlow_twins", "projector_widths": widths})
    assert "\n" not in str(caught.value)


def test_loss_is_in_float32_under_autocast():
    pair = torch.randn(2, 32, 10, generator=torch.Generator().manual_seed(0))
    expected = correlation_terms(*pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(correlation_terms(*pair), expected, atol=1e-6, rtol=0)
