from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional as tv

from medssl.augment.intensity.colour import ColorJitter, Grayscale, Illumination, Vignetting, luma, turn_hue
from medssl.seeds import torch_generator


def jittered(images: torch.Tensor, **changes: float) -> torch.Tensor:
    values = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0} | changes
    drawn = {name: torch.full((len(images),), value) for name, value in values.items()}
    return ColorJitter().apply(images.clone(), drawn)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3, 1.8])
def test_brightness_contrast_and_saturation_agree_with_torchvision(factor):
    images = torch.rand(4, 3, 16, 20)
    for name in ("brightness", "contrast", "saturation"):
        expected = getattr(tv, f"adjust_{name}")(images, factor)
        # torchvision's weights of the channels have four digits.
        torch.testing.assert_close(jittered(images, **{name: factor}), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.03, 0.25, 0.5])
def test_hue_agrees_with_torchvision(shift):
    images = torch.rand(4, 3, 16, 20)
    images[0, :, :4] = images[0, :1, :4]  # greys, which have no hue
    images[1, :, 0, :6] = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]]).float()
    torch.testing.assert_close(jittered(images, hue=shift), tv.adjust_hue(images, shift), atol=1e-5, rtol=0)


def test_all_four_in_their_order_agree_with_torchvision_one_after_another():
    images = torch.rand(2, 3, 16, 16)
    expected = images
    steps = {"brightness": 1.2, "contrast": 0.7, "saturation": 1.4, "hue": 0.08}
    for name, value in steps.items():
        expected = getattr(tv, f"adjust_{name}")(expected, value)
    torch.testing.assert_close(jittered(images, **steps), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("spatial", [(8, 9), (4, 5, 6)], ids=["2D", "3D"])
def test_factors_1_and_hue_0_change_nothing(spatial):
    for channels in (1, 3):
        images = torch.rand(2, channels, *spatial)
        torch.testing.assert_close(jittered(images), images, atol=1e-5, rtol=0)


def test_a_whole_turn_of_hue_is_none_and_value_and_chroma_stay():
    images = torch.rand(2, 3, 10, 10)
    torch.testing.assert_close(turn_hue(images, torch.ones(2)), images, atol=1e-5, rtol=0)
    turned = turn_hue(images, torch.tensor([0.13, -0.4]))
    torch.testing.assert_close(turned.amax(1), images.amax(1))
    torch.testing.assert_close(turned.amin(1), images.amin(1), atol=1e-6, rtol=0)
    assert (turned - images).abs().mean() > 0.05


def test_grey_images_of_one_channel_have_brightness_and_contrast_alone():
    images = torch.rand(2, 1, 12, 12)
    out = jittered(images, brightness=1.2, contrast=0.8, saturation=1.7, hue=0.2)
    torch.testing.assert_close(out, jittered(images, brightness=1.2, contrast=0.8))
    expected = tv.adjust_contrast(tv.adjust_brightness(images, 1.2), 0.8)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_grayscale_agrees_with_torchvision():
    images = torch.rand(3, 3, 8, 8)
    out = Grayscale().apply(images.clone(), {})
    torch.testing.assert_close(out, tv.rgb_to_grayscale(images, num_output_channels=3), atol=2e-4, rtol=0)
    assert torch.equal(luma(images[:, :1]), images[:, :1])
    assert Grayscale.colour, "one channel has no colour to lose"


@pytest.mark.parametrize("shape", [(4, 3, 40, 40), (4, 1, 3, 40, 40)], ids=["2D", "3D"])
def test_light_falls_off_along_the_drawn_angle(shape):
    angle = torch.tensor([0.0, math.pi / 2, math.pi, math.pi / 4])
    out = Illumination().apply(torch.full(shape, 0.5), {"strength": torch.full((4,), 0.2), "angle": angle})
    plane = out.reshape(4, -1, 40, 40)[:, 0]
    line = 0.5 * (1 + 0.2 * ((torch.arange(40) + 0.5) / 20 - 1))
    torch.testing.assert_close(plane[0], line.expand(40, 40))
    torch.testing.assert_close(plane[1], line[:, None].expand(40, 40), atol=1e-6, rtol=0)
    torch.testing.assert_close(plane[2], line.flip(0).expand(40, 40), atol=1e-6, rtol=0)
    assert plane[3].argmax() == 40 * 40 - 1
    assert plane[3].argmin() == 0


@pytest.mark.parametrize("shape", [(1, 3, 65, 33), (1, 1, 3, 65, 33)], ids=["2D", "3D"])
def test_vignetting_darkens_the_corners_and_not_the_middle(shape):
    plane = Vignetting().apply(torch.ones(shape), {"strength": torch.tensor([0.4])}).reshape(-1, 65, 33)[0]
    assert plane[32, 16] == pytest.approx(1)
    corners = plane[[0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, corners[:1].expand(4))
    assert corners[0] == pytest.approx(0.6, abs=0.02)
    assert plane[32, 0] == pytest.approx(0.8, abs=0.02)
    assert (plane[32, :17].diff() > 0).all()


def test_no_strength_changes_nothing():
    images, zero = torch.rand(2, 3, 7, 9), torch.zeros(2)
    assert torch.equal(Illumination().apply(images.clone(), {"strength": zero, "angle": zero + 1}), images)
    assert torch.equal(Vignetting().apply(images.clone(), {"strength": zero}), images)


def test_draws_are_in_their_ranges():
    n = 10_000
    drawn = ColorJitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1).sample(n, torch_generator(0))
    for name, most in (("brightness", 0.4), ("contrast", 0.3), ("saturation", 0.2)):
        assert stats.kstest(drawn[name].numpy(), "uniform", (1 - most, 2 * most)).pvalue > 1e-4, name
    assert stats.kstest(drawn["hue"].numpy(), "uniform", (-0.1, 0.2)).pvalue > 1e-4
    light = Illumination(strength=[0.1, 0.3]).sample(n, torch_generator(0))
    assert stats.kstest(light["strength"].numpy(), "uniform", (0.1, 0.2)).pvalue > 1e-4
    assert stats.kstest(light["angle"].numpy(), "uniform", (0, 2 * math.pi)).pvalue > 1e-4
    strength = Vignetting(strength=[0.0, 0.4]).sample(n, torch_generator(0))["strength"]
    assert stats.kstest(strength.numpy(), "uniform", (0, 0.4)).pvalue > 1e-4
    assert stats.binomtest(int(Grayscale().sample(n, torch_generator(0))["on"].sum()), n, 0.2).pvalue > 1e-4
