"""The control `imagenet_statistics`: ImageNet's scale, tensor by tensor, and none of its features."""

from __future__ import annotations

import torch
from torch import nn

from medssl.models.encoder import build_encoder
from medssl.models.statistics import draw_by_statistics, mean_and_std
from medssl.models.weights import initialise

LITE0 = "timm/tf_efficientnet_lite0"


def initialised(init: str, seed: int):
    encoder = build_encoder(LITE0)
    record = initialise(encoder, init, seed=seed)
    return dict(encoder.named_parameters()), dict(encoder.named_buffers()), record


def test_each_tensor_has_the_mean_and_variance_of_imagenets():
    imagenet, _, _ = initialised("imagenet", 0)
    drawn, buffers, record = initialised("imagenet_statistics", 0)
    assert record.matched == len(drawn) > 100
    assert record.source == "imagenet_statistics: efficientnet-lite0-57934424.pth"
    assert record.sha256.startswith("57934424")
    assert record.unexpected == ("classifier.bias", "classifier.weight")
    for name, tensor in drawn.items():
        count, (mean, std), (theirs, spread) = tensor.numel(), mean_and_std(tensor), mean_and_std(imagenet[name])
        # Five standard errors: of 158 tensors none should be beyond.
        assert abs(mean - theirs) <= 5 * spread / count**0.5 + 1e-7, name
        assert abs(std**2 - spread**2) <= 5 * spread**2 * (2 / count) ** 0.5 + 1e-12, name
    large = "backbone.network.conv_head.weight"
    pair = torch.stack([drawn[large].flatten(), imagenet[large].flatten()])
    assert abs(torch.corrcoef(pair)[0, 1]) < 0.02, "a feature of ImageNet's is left"
    for name, buffer in buffers.items():
        fresh = 1 if name.endswith("running_var") else 0
        if name.startswith("backbone"):
            assert (buffer == fresh).all(), name


def test_it_is_a_function_of_the_seed_alone():
    states = []
    for noise, seed in ((0, 7), (1, 7), (2, 8)):
        torch.manual_seed(noise)
        states.append(initialised("imagenet_statistics", seed)[0])
    name = "backbone.network.conv_stem.weight"
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0][name], states[2][name])
    random, _, _ = initialised("random", 7)
    assert not torch.equal(states[0][name], random[name])


def test_a_tensor_of_equal_values_stays_and_statistics_start_anew():
    network = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    with torch.no_grad():
        network[0].weight.normal_(3, 2)
        network[1].running_mean.fill_(5)
    assert draw_by_statistics(network, 0) == 4
    assert torch.equal(network[1].weight, torch.ones(64))
    assert not network[1].running_mean.any()
    assert abs(float(network[0].weight.detach().mean()) - 3) < 0.2
    assert abs(float(network[0].weight.detach().std()) - 2) < 0.2
