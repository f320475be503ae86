from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.models.heads import linear_head, mlp

LINEAR, BN, RELU = nn.Linear, nn.BatchNorm1d, nn.ReLU


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_simsiams_heads_at_resnet50():
    assert parameters(mlp([2048, 2048, 2048, 2048], output_bn="plain")) == 12_591_104
    assert parameters(mlp([2048, 512, 2048])) == 2_100_224


@pytest.mark.parametrize("hidden_bn", [True, False])
@pytest.mark.parametrize("output_bn", ["none", "affine", "plain"])
@pytest.mark.parametrize("widths", [[12, 5, 7], [12, 5, 6, 7]])
def test_layers(widths, output_bn, hidden_bn):
    layers = list(mlp(widths, hidden_bn=hidden_bn, output_bn=output_bn))
    hidden = [LINEAR, BN, RELU] if hidden_bn else [LINEAR, RELU]
    last = [LINEAR] if output_bn == "none" else [LINEAR, BN]
    assert [type(layer) for layer in layers] == hidden * (len(widths) - 2) + last
    linear = [layer for layer in layers if isinstance(layer, LINEAR)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths
    norms = [layer for layer in layers if isinstance(layer, BN)]
    affine = [True] * (len(norms) - (output_bn != "none")) + ([output_bn == "affine"] if output_bn != "none" else [])
    assert [layer.affine for layer in norms] == affine


def test_two_widths_are_one_layer():
    assert [type(layer) for layer in mlp([12, 7])] == [LINEAR]
    assert [type(layer) for layer in mlp([12, 7], output_bn="plain")] == [LINEAR, BN]


def test_a_bn_with_a_scale_has_no_shift():
    norm = mlp([12, 5, 7], output_bn="scale")[-1]
    assert norm.bias is None
    assert torch.equal(norm.weight, torch.ones(7))


@pytest.mark.parametrize("hidden_bn", [True, False])
@pytest.mark.parametrize(("output_bn", "expected"), [("none", True), ("affine", False), ("scale", False), ("plain", False)])
def test_a_linear_has_a_bias_where_no_bn_follows(hidden_bn, output_bn, expected):
    linear = [layer for layer in mlp([4, 5, 6], hidden_bn=hidden_bn, output_bn=output_bn) if isinstance(layer, LINEAR)]
    assert [layer.bias is not None for layer in linear] == [not hidden_bn, expected]


@pytest.mark.parametrize("output_bn", ["none", "plain"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_bias_of_the_last_linear_may_be_said(bias, output_bn):
    last = next(layer for layer in reversed(mlp([4, 5, 6], output_bn=output_bn, output_bias=bias)) if isinstance(layer, LINEAR))
    assert (last.bias is not None) is bias


def test_it_is_the_layers_one_after_the_other():
    head = mlp([4, 5, 6], output_bn="affine").eval()
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    hidden = torch.relu(head[1](x @ head[0].weight.T))
    torch.testing.assert_close(head(x), head[4](hidden @ head[3].weight.T))


def test_an_output_of_plain_bn_has_mean_0_and_variance_1_in_training():
    x = torch.randn(128, 32, generator=torch.Generator().manual_seed(0)) * 5 + 3
    z = mlp([32, 64, 64], output_bn="plain").train()(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("widths", [[], [8]])
def test_a_head_without_an_output_is_refused(widths):
    with pytest.raises(ValueError, match="an input and an output"):
        mlp(widths)


def test_linear_head_starts_without_an_opinion():
    head = linear_head(16, 3)
    assert torch.equal(head(torch.randn(5, 16, generator=torch.Generator().manual_seed(0))), torch.zeros(5, 3))
