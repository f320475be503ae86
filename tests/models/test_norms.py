"""Group normalisation made batch normalisation, with the convolutions' weights kept (2103.03166)."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

from medssl.errors import StudyError, WeightsError
from medssl.files import sha256_of_file
from medssl.models.backbones import build_backbone
from medssl.models.encoder import build_encoder
from medssl.models.encoder_file import load_encoder_folder, save_encoder
from medssl.models.norms import group_norm_to_batch_norm
from medssl.models.weights import initialise

BIT = "timm/resnetv2_50x1_bit"  # Big Transfer's network, as in the paper


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """(file, state dict) of the network with group normalisation, every tensor its own."""
    network = build_backbone(BIT).network
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in network.state_dict().items()
    }
    path = tmp_path_factory.mktemp("bit") / "bit.safetensors"
    safetensors.torch.save_file(state, path)
    return path, state


@pytest.fixture(scope="module")
def converted(pretrained):
    encoder = build_encoder(BIT, group_norm="to_batch_norm")
    return encoder, initialise(encoder, pretrained[0], seed=0)


def test_every_group_norm_becomes_a_fresh_batch_norm(converted):
    layers = list(converted[0].backbone.network.modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    original = [layer for layer in build_backbone(BIT).network.modules() if isinstance(layer, nn.GroupNorm)]
    assert not any(isinstance(layer, nn.GroupNorm) for layer in layers)
    assert [norm.num_features for norm in norms] == [norm.num_channels for norm in original]
    assert all(bool((norm.weight == 1).all()) and bool((norm.bias == 0).all()) for norm in norms)
    assert [type(norm.act) for norm in norms] == [type(norm.act) for norm in original]


def test_every_other_tensor_keeps_its_weights_and_the_record_says_so(converted, pretrained):
    encoder, record = converted
    path, state = pretrained
    ours = encoder.backbone.network.state_dict()
    norms = {name for name in state if "norm" in name}
    kept = state.keys() - norms
    assert len(kept) > 50
    assert all(torch.equal(ours[name], state[name]) for name in kept)
    assert record.matched == len(kept)
    assert record.sha256 == sha256_of_file(path)
    assert record.source == "file: bit.safetensors, group normalisation replaced"


def test_a_converted_encoder_trains_and_is_loaded_again(converted, tmp_path, encoder_card):
    encoder, _ = converted
    encoder.train()
    encoder(torch.rand(2, 1, 64, 64)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())
    save_encoder(tmp_path, encoder, encoder_card(encoder, group_norm="to_batch_norm"))
    again, card = load_encoder_folder(tmp_path)
    assert card.group_norm == "to_batch_norm"
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(images), encoder.eval()(images))


def test_an_encoder_that_was_converted_before_keeps_its_batch_norm(converted, tmp_path, encoder_card):
    encoder, _ = converted
    save_encoder(tmp_path, encoder, encoder_card(encoder, group_norm="to_batch_norm"))
    other = build_encoder(BIT, group_norm="to_batch_norm")
    initialise(other, tmp_path, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), encoder.state_dict().values(), strict=True))
    with pytest.raises(WeightsError, match="its group_norm is to_batch_norm, the study's is keep"):
        initialise(build_encoder(BIT), tmp_path, seed=1)


def test_a_converted_network_starts_from_random_weights_too():
    encoder = build_encoder(BIT, group_norm="to_batch_norm")
    assert initialise(encoder, "random", seed=0, zero_init_residual=None).source == "random"
    with pytest.raises(WeightsError, match="has no residual block whose last BN zero_init_residual could zero"):
        initialise(encoder, "random", seed=0, zero_init_residual=True)


def test_plain_group_norm_is_replaced_at_any_depth():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Sequential(nn.ReLU(), nn.GroupNorm(1, 8)))
    assert group_norm_to_batch_norm(network) == 2
    assert isinstance(network[1], nn.BatchNorm2d)
    assert isinstance(network[2][1], nn.BatchNorm2d)
    assert group_norm_to_batch_norm(network) == 0


def test_a_network_without_group_norm_is_refused():
    with pytest.raises(StudyError, match=r"encoder\.group_norm: .* resnet18 has no group normalisation; allowed: keep"):
        build_backbone("resnet18", group_norm="to_batch_norm")
