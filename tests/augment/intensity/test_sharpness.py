from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as tv

from medssl.augment.intensity.sharpness import Blur, LowResolution
from medssl.seeds import torch_generator

SPATIAL = [pytest.param((33, 40), id="2D"), pytest.param((12, 15, 20), id="3D")]


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("sigma", [0.5, 1.3, 3.0, 8.0])
def test_blur_agrees_with_scipy(spatial, sigma):
    images = torch.rand(2, 1, *spatial)
    out = Blur().apply(images.clone(), {"sigma": torch.full((2,), sigma)})
    for i in range(2):
        expected = gaussian_filter(images[i, 0].double().numpy(), sigma, mode="nearest", truncate=6)
        np.testing.assert_allclose(out[i, 0].numpy(), expected, atol=1e-5)


def test_blur_agrees_with_torchvision_away_from_the_edge_which_it_reflects():
    images = torch.rand(1, 3, 64, 64)
    out = Blur().apply(images.clone(), {"sigma": torch.tensor([1.5])})
    expected = tv.gaussian_blur(images, kernel_size=[23, 23], sigma=[1.5, 1.5])
    torch.testing.assert_close(out[..., 12:-12, 12:-12], expected[..., 12:-12, 12:-12], atol=1e-5, rtol=0)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_sigma_0_and_factor_1_change_nothing(spatial):
    images = torch.rand(2, 1, *spatial)
    torch.testing.assert_close(Blur().apply(images.clone(), {"sigma": torch.zeros(2)}), images, atol=1e-6, rtol=0)
    torch.testing.assert_close(LowResolution().apply(images.clone(), {"factor": torch.ones(2)}), images, atol=1e-6, rtol=0)


def test_each_sample_has_its_own_blur():
    images = torch.rand(1, 1, 32, 32).repeat(3, 1, 1, 1)
    out = Blur().apply(images.clone(), {"sigma": torch.tensor([0.1, 1.0, 4.0])})
    spread = out.flatten(1).std(1)
    assert spread[0] > 2 * spread[1] > 4 * spread[2]


@pytest.mark.parametrize(("side", "factor"), [(64, 0.5), (60, 0.7), (33, 0.4)])
def test_low_resolution_agrees_with_antialiased_resizing_down_and_up(side, factor):
    images = torch.rand(1, 1, side, side)
    few = round(side * factor)
    down = torch.nn.functional.interpolate(images, size=(few, few), mode="bilinear", align_corners=False, antialias=True)
    expected = torch.nn.functional.interpolate(down, size=(side, side), mode="bilinear", align_corners=False)
    out = LowResolution().apply(images.clone(), {"factor": torch.tensor([factor])})
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_low_resolution_of_a_volume_is_lost_along_every_axis():
    for axis in range(3):
        stripes = torch.zeros(1, 1, 16, 16, 16)
        stripes.movedim(2 + axis, 0)[::2] = 1
        out = LowResolution().apply(stripes, {"factor": torch.tensor([0.5])})
        assert out[:, :, 4:-4, 4:-4, 4:-4].std() < 0.02


@pytest.mark.parametrize("settings", [Blur(sigma=[0.0, 8.0]), LowResolution(factor=[0.01, 1.0])], ids=["blur", "low resolution"])
def test_constant_images_stay_constant_whatever_is_drawn(settings):
    drawn = settings.sample(50, torch_generator(0))
    for spatial in ((1, 1), (5, 40)):
        out = settings.apply(torch.full((50, 1, *spatial), 0.7), drawn)
        torch.testing.assert_close(out, torch.full_like(out, 0.7), atol=1e-5, rtol=0)
