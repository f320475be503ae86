"""SimSiam as in the paper: identities of the loss, where gradients go, the heads, the rates."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medssl.errors import StudyError
from medssl.methods import Batch, View, ViewSpec, build_method, method_settings
from medssl.methods.simsiam import SimSiam, SimSiamSettings, negative_cosine
from medssl.models.encoder import build_encoder
from medssl.models.weights import init_stream
from medssl.training.optimizers import build_optimizer, set_learning_rates


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


def test_two_views_of_the_sample_itself_are_asked_for():
    assert tiny().view_spec() == ViewSpec((View(), View()))
    assert not tiny().pairs


def test_loss_is_symmetric_and_within_its_range(views):
    """L(x1, x2) = L(x2, x1), in [-1, 1]."""
    method = tiny().train()
    loss = method(Batch(views)).loss
    torch.testing.assert_close(loss, method(Batch(views[::-1])).loss)
    assert -1 <= loss <= 1
    assert -1 <= method(Batch([views[0]] * 2)).loss <= 1


def test_loss_is_half_of_each_side(views):
    method = tiny().eval()
    with torch.no_grad():
        z1, z2 = (method.projector(method.encoder(view)) for view in views)
        p1, p2 = method.predictor(z1), method.predictor(z2)
        expected = -0.5 * (F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean())
        torch.testing.assert_close(method(Batch(views)).loss, expected)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_views_is_refused(views, count):
    with pytest.raises(ValueError, match=f"expected 2 views, got {count}"):
        tiny()(Batch([views[0]] * count))


def test_distance_is_two_plus_twice_the_negative_cosine():
    """|p^ - z^|^2 = 2 + 2 D, with D = -1 where both point the same way and 1 where they point apart."""
    p, z = torch.randn(2, 50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    squared = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(squared, 2 + 2 * negative_cosine(p, z), atol=1e-12, rtol=0)
    torch.testing.assert_close(negative_cosine(z, 3 * z), torch.tensor(-1.0, dtype=torch.float64))
    torch.testing.assert_close(negative_cosine(-z, z), torch.tensor(1.0, dtype=torch.float64))


def test_with_the_identity_as_predictor_the_stop_gradient_halves_the_gradient(views):
    """With h = identity the gradient with stop-gradient is exactly half of the one without."""
    gradients = []
    for stop in (True, False):
        method = tiny(stop_gradient=stop, predictor="none").double().train()
        method(Batch([view.double() for view in views])).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in method.parameters()]))
    assert gradients[0].abs().max() > 1e-6
    torch.testing.assert_close(gradients[0], gradients[1] / 2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("stop", [True, False])
def test_no_gradient_passes_through_the_target(views, stop):
    """D(p1, sg(z2)) has no gradient at x2; without stop-gradient it has one."""
    method = tiny(stop_gradient=stop, loss="asymmetric").train()
    inputs = [view.clone().requires_grad_() for view in views]
    method(Batch(inputs)).loss.backward()
    assert inputs[0].grad.abs().sum() > 0
    reached = inputs[1].grad is not None and bool(inputs[1].grad.abs().sum() > 0)
    assert reached is not stop


def test_neither_target_of_the_symmetric_loss_passes_a_gradient(views):
    """With a constant prediction only the targets could pass one on."""
    for stop in (True, False):
        method = tiny(stop_gradient=stop).train()
        nn.init.zeros_(method.predictor[-1].weight)
        nn.init.ones_(method.predictor[-1].bias)
        inputs = [view.clone().requires_grad_() for view in views]
        method(Batch(inputs)).loss.backward()
        assert [bool(view.grad.abs().sum() > 0) for view in inputs] == [not stop, not stop]


def test_projections_have_mean_0_and_variance_1_in_training(views):
    """z of the last BN, which has no affine parameters, view by view; what the monitor gets is that of training."""
    method = tiny().train()
    output = method(Batch(views))
    assert output.z.shape == output.p.shape == (2, 16, 64)
    assert output.features.shape == (2, 16, 32)
    for x in (output.z, output.p, output.features):
        assert x.dtype == torch.float32
        assert not x.requires_grad
    # float64 leaves only BN's epsilon between the variance and 1.
    wide = tiny().double().train()
    for z in wide(Batch([view.double() * 100 for view in views])).z:
        torch.testing.assert_close(z.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
        torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(64), atol=1e-3, rtol=0)
    assert all(value.ndim == 0 and not value.requires_grad and value.isfinite() for value in output.logs.values())


def test_each_view_is_a_batch_of_its_own_to_bn(views):
    method = tiny().train()
    alone, other = method(Batch(views)).z[0], method(Batch([views[0], views[1] * 5 + 3])).z[0]
    assert torch.equal(alone, other)


def test_bfloat16_autocast_keeps_the_loss_in_float32(views):
    method = tiny().train()
    expected = method(Batch(views)).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(Batch(views))
    assert output.loss.dtype == output.z.dtype == output.p.dtype == output.features.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected, atol=1e-2, rtol=0)


def test_every_parameter_is_in_one_group_and_the_predictor_keeps_its_rate():
    method = SimSiam(
        SimSiamSettings(projector_dim=64, projector_hidden=64, encoder_lr_scale=0.1), build_encoder("resnet18", "small")
    )
    groups = {group["name"]: group for group in method.parameter_groups()}
    schedules = {"encoder": "cosine", "projector": "cosine", "predictor": "constant"}
    assert {name: group["schedule"] for name, group in groups.items()} == schedules
    assert {name: group["lr_scale"] for name, group in groups.items()} == {"encoder": 0.1, "projector": 1.0, "predictor": 1.0}
    assert all(group["weight_decay"] for group in groups.values())  # the paper's is on BN and biases too
    listed = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in method.parameters())
    cosine = tiny(predictor_lr="cosine").parameter_groups()
    assert [group["schedule"] for group in cosine] == ["cosine"] * 3


@pytest.mark.parametrize("batch_size", [256, 512, 64])
def test_the_rate_is_the_base_times_the_batch_over_256(batch_size):
    """Encoder and projector follow the cosine to about 0, the predictor's rate stays (2011.10566, section 4.1, table 1c)."""
    method, top, total = tiny(), 0.05 * batch_size / 256, 200
    optimizer = build_optimizer(method.recipe, method.parameter_groups(), method.recipe.peak_lr(batch_size))
    assert type(optimizer) is torch.optim.SGD
    assert {(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups} == {(0.9, 1e-4)}
    rates = [set_learning_rates(optimizer, step, total, 0) for step in range(total)]
    assert rates[0] == pytest.approx(dict.fromkeys(("encoder", "projector", "predictor"), top))
    assert rates[100]["encoder"] == pytest.approx(top / 2)
    assert all(later["encoder"] < sooner["encoder"] for sooner, later in itertools.pairwise(rates))
    assert rates[-1]["encoder"] == rates[-1]["projector"] < 1e-4 * top
    assert {rate["predictor"] for rate in rates} == {top}


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


def test_sizes_of_the_heads_on_resnet50():
    method = build_method(method_settings({"name": "simsiam"}), build_encoder("resnet50"), seed=0)
    assert method.dim == 2048
    assert sum(p.numel() for p in method.projector.parameters()) == 12_591_104
    assert sum(p.numel() for p in method.predictor.parameters()) == 2_100_224


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "simsam"}, "did you mean 'simsiam'"),
        ({}, "allowed: simsiam"),
        ({"name": "simsiam", "projector_layers": 4}, "projector_layers"),
        ({"name": "simsiam", "projector_dim": 1}, "projector_dim"),
        ({"name": "simsiam", "projector_hidden": 1}, "projector_hidden is 1; allowed: features, or at least 2"),
        ({"name": "simsiam", "projector_hidden": "wide"}, "projector_hidden"),
        ({"name": "simsiam", "predictor": "random"}, "predictor: is 'random'"),
        ({"name": "simsiam", "predictor_hidden": 0}, "predictor_hidden"),
        ({"name": "simsiam", "predictor_lr": "linear"}, "predictor_lr"),
        ({"name": "simsiam", "batch_norm": "out"}, "batch_norm"),
        ({"name": "simsiam", "loss": "symetric"}, "did you mean 'symmetric'"),
        ({"name": "simsiam", "similarity": "dot"}, "similarity"),
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
