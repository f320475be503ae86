from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medssl.errors import StudyError
from medssl.methods import build_method, method_settings
from medssl.methods.simsiam import SimSiam, SimSiamSettings, negative_cosine
from medssl.models.encoder import build_encoder
from medssl.models.weights import init_stream


class TinyEncoder(nn.Sequential):
    """Stands in for an encoder where a real one would be slow."""

    feature_dim = 32

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(seed: int = 0, **settings) -> SimSiam:
    values = {"projector_dim": 64, "projector_hidden": 64} | settings
    with init_stream(seed):
        encoder = TinyEncoder()
    return build_method(SimSiamSettings(**values), encoder, seed=seed)


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(16, 1, 12, 12, generator=generator) for _ in range(2)]


def test_loss_is_symmetric_and_within_its_range(views):
    method = tiny().train()
    loss = method(views).loss
    torch.testing.assert_close(loss, method(views[::-1]).loss)
    assert -1 <= loss <= 1
    assert method.view_spec().views == 2


def test_loss_is_half_of_each_side(views):
    method = tiny().eval()
    with torch.no_grad():
        z1, z2 = (method.projector(method.encoder(view)) for view in views)
        p1, p2 = method.predictor(z1), method.predictor(z2)
        expected = -0.5 * (F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean())
        torch.testing.assert_close(method(views).loss, expected)


def test_distance_is_two_plus_twice_the_negative_cosine():
    p, z = torch.randn(2, 50, 8, dtype=torch.float64)
    squared = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(squared, 2 + 2 * negative_cosine(p, z), atol=1e-12, rtol=0)
    torch.testing.assert_close(negative_cosine(z, z), torch.tensor(-1.0, dtype=torch.float64))
    torch.testing.assert_close(negative_cosine(-z, z), torch.tensor(1.0, dtype=torch.float64))


def test_without_a_predictor_the_stop_gradient_halves_the_gradient(views):
    gradients = []
    for stop in (True, False):
        method = tiny(stop_gradient=stop).double().train()
        method.predictor = nn.Identity()
        method([view.double() for view in views]).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in method.parameters()]))
    assert gradients[0].abs().max() > 1e-6
    torch.testing.assert_close(gradients[0], gradients[1] / 2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("stop", [True, False])
def test_no_gradient_passes_through_the_target(views, stop):
    """The gradient at z2 of D(p1, z2) alone: what reaches the loss through p2 is cut by making the predictor a constant."""
    method = tiny(stop_gradient=stop).train()
    for parameter in method.predictor.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(method.predictor[-1].bias)
    inputs = [view.clone().requires_grad_() for view in views]
    method(inputs).loss.backward()
    reached = [bool(view.grad.abs().sum() > 0) for view in inputs]
    assert reached == [not stop, not stop]


def test_projections_for_the_monitor_are_those_of_training(views):
    method = tiny().train()
    output = method(views)
    assert output.z.shape == output.p.shape == (32, 64)
    assert not output.z.requires_grad
    for half in output.z.chunk(2):
        torch.testing.assert_close(half.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
        torch.testing.assert_close(half.var(0, unbiased=False), torch.ones(64), atol=5e-2, rtol=0)
    assert all(value.ndim == 0 and not value.requires_grad and value.isfinite() for value in output.logs.values())


def test_bfloat16_autocast_keeps_the_loss_in_float32(views):
    method = tiny().train()
    expected = method(views).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(views)
    assert output.loss.dtype == output.z.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected, atol=1e-2, rtol=0)


def test_every_parameter_is_in_one_group_and_the_predictor_keeps_its_rate():
    method = SimSiam(
        SimSiamSettings(projector_dim=64, projector_hidden=64, encoder_lr_scale=0.1), build_encoder("resnet18", "small")
    )
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert {name: group["schedule"] for name, group in groups.items()} == {
        "encoder": "cosine",
        "projector": "cosine",
        "predictor": "constant",
    }
    assert {name: group["lr_scale"] for name, group in groups.items()} == {"encoder": 0.1, "projector": 1.0, "predictor": 1.0}
    assert all(group["weight_decay"] for group in groups.values())
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in method.parameters())
    cosine = tiny(predictor_lr="cosine").parameter_groups()
    assert [group["schedule"] for group in cosine] == ["cosine"] * 3


def test_frozen_parameters_are_in_no_group():
    method = tiny()
    method.encoder[0].weight.requires_grad_(False)
    listed = {id(parameter) for group in method.parameter_groups() for parameter in group["params"]}
    assert id(method.encoder[0].weight) not in listed


def test_heads_are_a_function_of_the_seed_alone():
    states = []
    for noise, seed in ((0, 1), (1, 1), (2, 2)):
        torch.manual_seed(noise)
        states.append(tiny(seed=seed).predictor[-1].weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_sizes_of_the_heads_on_a_real_encoder():
    method = build_method(method_settings({"name": "simsiam"}), build_encoder("resnet50"), seed=0)
    assert sum(p.numel() for p in method.projector.parameters()) == 12_591_104
    assert sum(p.numel() for p in method.predictor.parameters()) == 2_100_224
    two = tiny(projector_layers=2)
    assert [type(m) for m in two.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "simsam"}, "did you mean 'simsiam'"),
        ({}, "allowed: simsiam"),
        ({"name": "simsiam", "projector_layers": 4}, "projector_layers"),
        ({"name": "simsiam", "weight_decay": 0.1}, "unknown key"),
        ({"name": "simsiam", "stop_gradient": "yes"}, "stop_gradient"),
        ({"name": "simsiam", "encoder_lr_scale": 0.0}, "encoder_lr_scale"),
    ],
)
def test_wrong_settings_are_one_line(value, words):
    with pytest.raises(StudyError, match=words) as caught:
        method_settings(value)
    assert str(caught.value).startswith("pretrain.method")
    assert "\n" not in str(caught.value)
