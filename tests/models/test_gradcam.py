from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medssl.errors import StudyError
from medssl.models.encoder import build_encoder
from medssl.models.gradcam import folded, grad_cam


@pytest.fixture
def images():
    return torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def _weight(encoder, seed: int = 1) -> torch.Tensor:
    return torch.randn(encoder.feature_dim, generator=torch.Generator().manual_seed(seed))


def test_the_map_of_a_network_that_pools_by_the_mean_is_the_weighted_sum_of_its_channels(images):
    # With a mean over the pixels the gradient is weight / pixels everywhere, so Grad-CAM is CAM up to a factor.
    encoder = build_encoder("resnet18").eval()
    weight = _weight(encoder)
    maps = encoder.feature_map(images).detach()
    by_hand = F.relu((weight.view(1, -1, 1, 1) * maps).sum(1, keepdim=True))
    large = F.interpolate(by_hand, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    expected = large / large.amax((1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(encoder, weight, images), expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0", "timm/convnext_atto"])
def test_a_map_has_the_images_size_and_lies_in_the_range(name, images):
    encoder = build_encoder(name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    found = grad_cam(encoder, _weight(encoder), images)
    assert found.shape == (3, 64, 64)
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad
    assert encoder.training
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_each_image_has_the_map_that_it_has_alone(images):
    encoder = build_encoder("resnet18")
    weight = _weight(encoder)
    together = grad_cam(encoder, weight, images)
    torch.testing.assert_close(together[1:2], grad_cam(encoder, weight, images[1:2]), rtol=1e-4, atol=1e-5)


class _Bright(nn.Module):
    """Stands in for the last stage of a ResNet: channel 0 is the image's brightness in 8 x 8 px, the others are 0."""

    def __init__(self, images: torch.Tensor, channels: int) -> None:
        super().__init__()
        self.images, self.channels = images, channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = F.avg_pool2d(self.images[: len(x)], 8)
        return torch.cat([small, small.new_zeros(len(small), self.channels - 1, *small.shape[-2:])], 1)


def test_a_feature_of_one_place_lights_that_place_and_no_other():
    images = torch.zeros(1, 1, 64, 64)
    images[0, 0, 8:16, 40:48] = 1
    encoder = build_encoder("resnet18").eval()
    encoder.backbone.network.layer4 = _Bright(images, encoder.feature_dim)
    weight = torch.zeros(encoder.feature_dim)
    weight[0] = 2.0
    found = grad_cam(encoder, weight, images)[0]
    y, x = np.unravel_index(int(found.argmax()), found.shape)
    assert (y // 8, x // 8) == (1, 5)
    assert found[24:].max() == 0
    assert found[:, :32].max() == 0
    assert grad_cam(encoder, -weight, images).max() == 0  # nothing speaks for an output that the place speaks against


def test_a_standardised_probe_folds_into_its_weight():
    rng = np.random.default_rng(0)
    features, weight, mean, scale = rng.normal(size=(5, 7)), rng.normal(size=7), rng.normal(size=7), rng.uniform(0.5, 2, 7)
    standardised = ((features - mean) / scale) @ weight
    plain = features @ folded(weight, scale).numpy()
    np.testing.assert_allclose(standardised - plain, (standardised - plain)[0] * np.ones(5), atol=1e-5)


def test_what_cannot_be_shown_is_refused(images):
    encoder = build_encoder("resnet18")
    with pytest.raises(ValueError, match=r"expected a weight of shape \(512,\)"):
        grad_cam(encoder, torch.zeros(3), images)
    transformer = build_encoder("timm/vit_tiny_patch16_224")
    with pytest.raises(StudyError, match="no spatial feature map"):
        grad_cam(transformer, torch.zeros(transformer.feature_dim), torch.rand(1, 1, 224, 224))
