"""The direction of collapse on a toy that trains in seconds: with and without stop-gradient, output BN and predictor."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.methods import build_method
from medssl.methods.collapse import CollapseMonitor
from medssl.methods.simsiam import SimSiamSettings
from medssl.models.weights import init_stream

STEPS, BATCH, DIM = 100, 128, 128


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time to more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ToyEncoder(nn.Sequential):
    feature_dim = 64

    def __init__(self) -> None:
        layers, channels = [], 1
        for width in (16, 32, 64):
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def toy_images(generator: torch.Generator) -> Tensor:
    """(2048, 1, 16, 16): eight smooth prototypes, each image with a smooth field of its own."""
    enlarge = functools.partial(F.interpolate, size=(16, 16), mode="bicubic")
    prototypes = torch.randn(8, 1, 5, 5, generator=generator)
    own = torch.randn(2048, 1, 6, 6, generator=generator)
    return enlarge(prototypes)[torch.randint(8, (2048,), generator=generator)] + 0.7 * enlarge(own)


def toy_view(x: Tensor, generator: torch.Generator) -> Tensor:
    x = x.roll(torch.randint(-2, 3, (2,), generator=generator).tolist(), (2, 3))
    x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
    gain, offset = 0.4 * (torch.rand(2, len(x), 1, 1, 1, generator=generator) - 0.5)
    return x * (1 + gain) + offset + 0.1 * torch.randn(x.shape, generator=generator)


@functools.cache
def trained(stop_gradient: bool = True, output_bn: bool = True, predictor: bool = True) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    with init_stream(0):
        encoder = ToyEncoder()
    settings = SimSiamSettings(projector_layers=2, projector_dim=DIM, projector_hidden=64, stop_gradient=stop_gradient)
    method = build_method(settings, encoder, seed=0)
    if not output_bn:
        method.projector[-1] = nn.Identity()
    if not predictor:
        method.predictor = nn.Identity()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05 * BATCH / 256, momentum=0.9, weight_decay=1e-4)
    images, monitor = toy_images(generator), CollapseMonitor(DIM)
    for _ in range(STEPS):
        batch = images[torch.randint(len(images), (BATCH,), generator=generator)]
        output = method([toy_view(batch, generator), toy_view(batch, generator)])
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        monitor.update(output.z)
    return monitor.report() | {"loss": float(output.loss.detach())}


def test_the_stop_gradient_prevents_collapse_without_output_bn():
    assert trained(output_bn=False)["std_sqrt_d"] > 0.7
    assert trained(output_bn=False, stop_gradient=False)["std_sqrt_d"] < 0.35


def test_the_stop_gradient_keeps_the_rank_with_the_default_head():
    healthy, collapsing = trained(), trained(stop_gradient=False)
    assert healthy["std_sqrt_d"] > 0.93
    assert healthy["effective_rank"] > 40
    assert collapsing["effective_rank"] < 30
    assert collapsing["loss"] < healthy["loss"]


def test_without_a_predictor_std_is_silent_and_the_rank_falls():
    report = trained(predictor=False)
    assert report["std_sqrt_d"] > 0.92
    assert report["effective_rank"] < 30
    assert report["rank_share"] < 0.6 * trained()["rank_share"]


@pytest.mark.parametrize("arguments", [{}, {"stop_gradient": False}])
def test_the_loss_falls(arguments):
    assert trained(**arguments)["loss"] < -0.4
