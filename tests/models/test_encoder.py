from __future__ import annotations

import pytest
import torch
import torchvision

from medssl.models.encoder import Encoder, build_encoder


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0"])
def test_grey_features_equal_those_of_the_unmodified_colour_network(name):
    encoder = build_encoder(name).eval()
    grey = torch.rand(3, 1, 64, 64)
    colour = torchvision.transforms.functional.normalize(grey.repeat(1, 3, 1, 1), encoder.backbone.mean, encoder.backbone.std)
    with torch.no_grad():
        expected = encoder.backbone.network(colour)
        torch.testing.assert_close(encoder(grey), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(encoder(grey.repeat(1, 3, 1, 1)), expected, atol=1e-4, rtol=0)


def test_normalisation_is_saved_with_the_weights():
    encoder = build_encoder("resnet18", mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    state = encoder.state_dict()
    assert state["mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    other = build_encoder("resnet18").eval()
    other.load_state_dict(state)
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(other(x), encoder.eval()(x))


def test_feature_map_and_dimension():
    encoder = build_encoder("resnet18", "small").eval()
    assert encoder.feature_dim == 512
    assert encoder.feature_map(torch.rand(1, 1, 32, 32)).shape == (1, 512, 4, 4)


@pytest.mark.parametrize("shape", [(2, 2, 32, 32), (1, 32, 32), (2, 4, 32, 32)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected images"):
        build_encoder("resnet18")(torch.rand(shape))


def test_gradients_reach_the_input_through_the_normalisation():
    x = torch.rand(2, 1, 32, 32, requires_grad=True)
    encoder = build_encoder("resnet18", "small")
    assert isinstance(encoder, Encoder)
    encoder(x).sum().backward()
    assert x.grad.abs().sum() > 0
