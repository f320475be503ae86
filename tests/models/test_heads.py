from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.models.heads import linear_head, predictor, projector


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_at_resnet50():
    assert parameters(projector(2048, 2048, 2048)) == 12_591_104
    assert parameters(predictor(2048, 512)) == 2_100_224


@pytest.mark.parametrize("layers", [2, 3])
def test_projector_layers(layers):
    modules = list(projector(512, 96, 64, layers))
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (layers - 1)
    assert [type(m) for m in modules] == [*hidden, nn.Linear, nn.BatchNorm1d]
    assert all(m.bias is None for m in modules if isinstance(m, nn.Linear))
    assert [m.affine for m in modules if isinstance(m, nn.BatchNorm1d)] == [True] * (layers - 1) + [False]
    assert modules[-2].out_features == 64


def test_predictor_layers():
    first, norm, relu, last = predictor(64, 16)
    assert first.bias is None
    assert norm.affine
    assert isinstance(relu, nn.ReLU)
    assert (last.in_features, last.out_features) == (16, 64)
    assert last.bias is not None


def test_projection_has_mean_0_and_variance_1_in_training():
    z = projector(32, 64, 64).train()(torch.randn(128, 32) * 5 + 3)
    torch.testing.assert_close(z.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(64), atol=1e-3, rtol=0)


def test_a_projector_of_one_layer_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        projector(8, 8, 8, layers=1)


def test_linear_head_starts_without_an_opinion():
    head = linear_head(16, 3)
    assert torch.equal(head(torch.randn(5, 16)), torch.zeros(5, 3))
