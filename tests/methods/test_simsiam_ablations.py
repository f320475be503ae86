"""The ablations of SimSiam's paper, each a setting: BN, predictor, direction of the loss, similarity, width of the projector."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medssl.methods import Batch, View, build_method
from medssl.methods.simsiam import SimSiam, SimSiamSettings, cross_entropy
from medssl.models.encoder import build_encoder

LINEAR, BN, RELU = nn.Linear, nn.BatchNorm1d, nn.ReLU


class TinyEncoder(nn.Sequential):
    feature_dim = 24

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 24, 3, 2), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(**settings) -> SimSiam:
    torch.manual_seed(0)
    return build_method(SimSiamSettings(**{"projector_dim": 16, "projector_hidden": 20} | settings), TinyEncoder(), seed=0)


def four_views() -> list[torch.Tensor]:
    return list(torch.rand(4, 12, 1, 12, 12, generator=torch.Generator().manual_seed(0)))


def described(head: nn.Sequential) -> tuple[list[type], list[bool], list[bool]]:
    """Types of the layers; which Linear have a bias; which BN have affine parameters."""
    biases = [layer.bias is not None for layer in head if isinstance(layer, LINEAR)]
    return [type(layer) for layer in head], biases, [layer.affine for layer in head if isinstance(layer, BN)]


@pytest.mark.parametrize(
    ("batch_norm", "projector", "predictor"),
    [
        (
            "none",
            ([LINEAR, RELU, LINEAR, RELU, LINEAR], [True, True, True], []),
            ([LINEAR, RELU, LINEAR], [True, True], []),
        ),
        (
            "hidden",
            ([LINEAR, BN, RELU, LINEAR, BN, RELU, LINEAR], [False, False, True], [True, True]),
            ([LINEAR, BN, RELU, LINEAR], [False, True], [True]),
        ),
        (
            "default",
            ([LINEAR, BN, RELU, LINEAR, BN, RELU, LINEAR, BN], [False, False, False], [True, True, False]),
            ([LINEAR, BN, RELU, LINEAR], [False, True], [True]),
        ),
        (
            "all",
            ([LINEAR, BN, RELU, LINEAR, BN, RELU, LINEAR, BN], [False, False, False], [True, True, False]),
            ([LINEAR, BN, RELU, LINEAR, BN], [False, False], [True, True]),
        ),
    ],
)
def test_bn_in_the_heads(batch_norm, projector, predictor):
    """Layers, biases and affine parameters of both heads, for each row of table 3; a Linear before a BN has no bias."""
    method = tiny(batch_norm=batch_norm)
    assert described(method.projector) == projector
    assert described(method.predictor) == predictor
    assert method(Batch(four_views()[:2])).loss.isfinite()


def test_the_predictor_is_a_bottleneck_of_a_quarter():
    widths = [(layer.in_features, layer.out_features) for layer in tiny().predictor if isinstance(layer, LINEAR)]
    assert widths == [(16, 4), (4, 16)]
    assert tiny(predictor_hidden=7).predictor[0].out_features == 7


def test_two_layers_as_for_small_images():
    projector = tiny(projector_layers=2).projector
    assert described(projector) == ([LINEAR, BN, RELU, LINEAR, BN], [False, False], [True, False])
    assert (projector[0].in_features, projector[0].out_features, projector[3].out_features) == (24, 20, 16)


@pytest.mark.parametrize(("hidden", "width"), [("features", 512), (96, 96)])
def test_the_projector_may_be_as_wide_as_the_features(hidden, width):
    settings = SimSiamSettings(projector_dim=64, projector_hidden=hidden)
    projector = SimSiam(settings, build_encoder("resnet18", "small")).projector
    widths = [(layer.in_features, layer.out_features) for layer in projector if isinstance(layer, LINEAR)]
    assert widths == [(512, width), (width, width), (width, 64)]


def test_no_predictor_predicts_z():
    method = tiny(predictor="none")
    output = method(Batch(four_views()[:2]))
    assert torch.equal(output.p, output.z)
    assert [group["name"] for group in method.parameter_groups()] == ["encoder", "projector"]


def test_a_fixed_random_predictor_is_not_trained_and_passes_the_gradient_on():
    method = tiny(predictor="fixed_random").train()
    before = [parameter.clone() for parameter in method.predictor.parameters()]
    assert len(before) == 5
    groups = method.parameter_groups()
    assert [group["name"] for group in groups] == ["encoder", "projector"]
    optimizer = torch.optim.SGD([{"params": group["params"]} for group in groups], lr=0.1)
    method(Batch(four_views()[:2])).loss.backward()
    assert all(parameter.grad is None for parameter in method.predictor.parameters())
    assert method.encoder[0].weight.grad.abs().max() > 0
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, method.predictor.parameters(), strict=True))


def test_a_fixed_random_predictor_starts_as_a_learned_one():
    fixed, learned = tiny(predictor="fixed_random").predictor, tiny().predictor
    assert all(torch.equal(*pair) for pair in zip(fixed.parameters(), learned.parameters(), strict=True))


def test_a_bias_as_predictor_is_added_to_z_of_unit_length():
    method = tiny(predictor="bias_only", batch_norm="hidden")
    assert [parameter.shape for parameter in method.predictor.parameters()] == [(16,)]
    assert method.parameter_groups()[-1]["params"] == [method.predictor.bias]
    nn.init.normal_(method.predictor.bias)
    output = method(Batch(four_views()[:2]))
    added = output.p - F.normalize(output.z, dim=-1)
    torch.testing.assert_close(added, method.predictor.bias.detach().expand_as(added))
    output.loss.backward()
    assert method.predictor.bias.grad.abs().max() > 0


def test_the_asymmetric_loss_is_one_direction():
    """D(p1, sg(z2)) alone: x2 gets no gradient, and the order of the views matters."""
    method, views = tiny(loss="asymmetric").train(), four_views()[:2]
    inputs = [view.clone().requires_grad_() for view in views]
    loss = method(Batch(inputs)).loss
    loss.backward()
    assert inputs[0].grad.abs().max() > 0
    assert inputs[1].grad is None or not inputs[1].grad.any()
    p, z = method.embed(views[0])[2], method.embed(views[1])[1]
    torch.testing.assert_close(loss, -F.cosine_similarity(p, z).mean())
    swapped = method(Batch(views[::-1])).loss
    assert not torch.isclose(loss, swapped, atol=1e-4)
    torch.testing.assert_close(tiny().train()(Batch(views)).loss, (loss + swapped) / 2)


def test_two_pairs_are_the_mean_of_two_asymmetric_losses():
    method, one, views = tiny(loss="asymmetric_two_pairs").train(), tiny(loss="asymmetric").train(), four_views()
    assert method.view_spec().views == (View(),) * 4
    output = method(Batch(views))
    assert output.z.shape == (4, 12, 16)
    torch.testing.assert_close(output.loss, (one(Batch(views[:2])).loss + one(Batch(views[2:])).loss) / 2)
    with pytest.raises(ValueError, match="expected 4 views, got 2"):
        method(Batch(views[:2]))


def test_cross_entropy_equals_its_formula():
    """-softmax(z) . log softmax(p), mean over rows (section 4.5), added up by hand."""
    p, z = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for p_row, z_row in zip(p.tolist(), z.tolist(), strict=True):
        p_sum, z_sum = (sum(math.exp(x) for x in row) for row in (p_row, z_row))
        total -= sum(math.exp(b) / z_sum * math.log(math.exp(a) / p_sum) for a, b in zip(p_row, z_row, strict=True))
    assert float(cross_entropy(p, z)) == pytest.approx(total / 5, abs=1e-12)


def test_cross_entropy_is_least_where_both_agree():
    """It is then the entropy of softmax(z)."""
    z = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    entropy = torch.distributions.Categorical(logits=z).entropy().mean()
    torch.testing.assert_close(cross_entropy(z, z), entropy)
    assert cross_entropy(z.roll(1, 0), z) > entropy


def test_cross_entropy_as_similarity_is_symmetric_and_stops_the_gradient():
    method, views = tiny(similarity="cross_entropy").train(), four_views()[:2]
    (_, z1, p1), (_, z2, p2) = (method.embed(view) for view in views)
    loss = method(Batch(views)).loss
    torch.testing.assert_close(loss, (cross_entropy(p1, z2) + cross_entropy(p2, z1)) / 2)
    assert loss > 0
    one_way = tiny(similarity="cross_entropy", loss="asymmetric").train()
    inputs = [view.clone().requires_grad_() for view in views]
    one_way(Batch(inputs)).loss.backward()
    assert inputs[0].grad.abs().max() > 0
    assert inputs[1].grad is None or not inputs[1].grad.any()
