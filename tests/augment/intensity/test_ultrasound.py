from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from medssl.augment.intensity.ultrasound import DepthAttenuation, SectorShadow, Speckle
from medssl.seeds import torch_generator


@pytest.mark.parametrize("spatial", [(160, 160), (40, 40, 40)], ids=["2D", "3D"])
@pytest.mark.parametrize("level", [0.2, 0.5])
def test_speckle_has_the_drawn_deviation_relative_to_the_pixel(spatial, level):
    drawn = {"std": torch.tensor([0.05, 0.15]), "seed": torch.tensor([1, 2])}
    out = Speckle().apply(torch.full((2, 1, *spatial), level), drawn) / level - 1
    inner = out[(..., *[slice(5, -5)] * len(spatial))].flatten(1)
    torch.testing.assert_close(inner.std(1), drawn["std"], rtol=0.06, atol=0)
    assert inner.mean(1).abs().max() < 0.02


def test_speckle_leaves_black_black_has_grain_and_is_the_same_in_all_channels():
    images = torch.full((1, 3, 64, 64), 0.5)
    images[..., :20] = 0
    out = Speckle().apply(images.clone(), {"std": torch.tensor([0.2]), "seed": torch.tensor([3])})
    assert out[..., :20].eq(0).all()
    assert torch.equal(out[:, 0], out[:, 1])
    noise = out[0, 0, :, 25:]
    near = torch.corrcoef(torch.stack([noise[1:].flatten(), noise[:-1].flatten()]))[0, 1]
    far = torch.corrcoef(torch.stack([noise[10:].flatten(), noise[:-10].flatten()]))[0, 1]
    assert near > 0.5
    assert abs(far) < 0.15


@pytest.mark.parametrize("shape", [(2, 1, 32, 20), (2, 3, 32, 20), (2, 1, 5, 32, 20)], ids=["grey", "rgb", "3D"])
def test_attenuation_is_exponential_in_depth_and_1_in_the_middle(shape):
    out = DepthAttenuation().apply(torch.full(shape, 0.5), {"strength": torch.tensor([0.6, -0.6])})
    depth = (torch.arange(32) + 0.5) / 32 - 0.5
    for i, k in enumerate((0.6, -0.6)):
        line = 0.5 * torch.exp(-k * depth)
        torch.testing.assert_close(out[i], line[:, None].expand(shape[1:]))


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 64, 64), (1, 1, 3, 64, 64)], ids=["grey", "rgb", "3D"])
def test_a_shadow_is_as_dark_and_wide_as_drawn_and_begins_at_its_depth(shape):
    drawn = {name: torch.tensor([v]) for name, v in (("strength", 0.7), ("width", 0.2), ("at", 0.4), ("depth", 0.3))}
    out = SectorShadow().apply(torch.ones(shape), drawn).reshape(-1, 64, 64)
    assert torch.equal(out[0], out[-1])
    middle = out[0, 31:33].mean(0)
    assert middle.min() == pytest.approx(0.3, abs=0.01)
    dark = (middle < 0.65).nonzero().squeeze()
    assert float(dark.float().mean() + 0.5) / 64 == pytest.approx(0.4, abs=0.02)
    assert len(dark) / 64 == pytest.approx(0.2, abs=0.04)
    assert out[0, :12].min() > 0.9, "above its depth there is none"
    widths = (out[0] < 0.65).sum(1)
    assert widths[-1] > widths[32], "rays diverge"


def test_nothing_drawn_changes_nothing():
    images = torch.rand(2, 1, 9, 11)
    zero = torch.zeros(2)
    shadow = {"strength": zero, "width": zero + 0.1, "at": zero + 0.5, "depth": zero + 0.3}
    assert torch.equal(Speckle().apply(images.clone(), {"std": zero, "seed": torch.tensor([1, 2])}), images)
    assert torch.equal(DepthAttenuation().apply(images.clone(), {"strength": zero}), images)
    assert torch.equal(SectorShadow().apply(images.clone(), shadow), images)


def test_draws_are_in_their_ranges():
    n = 10_000
    shadow = SectorShadow(strength=[0.2, 0.6], width=[0.05, 0.15]).sample(n, torch_generator(0))
    for name, low, high in (("strength", 0.2, 0.6), ("width", 0.05, 0.15), ("at", 0.1, 0.9), ("depth", 0.1, 0.6)):
        assert stats.kstest(shadow[name].numpy(), "uniform", (low, high - low)).pvalue > 1e-4, name
    gain = DepthAttenuation(strength=0.6).sample(n, torch_generator(0))["strength"]
    assert stats.kstest(gain.numpy(), "uniform", (-0.6, 1.2)).pvalue > 1e-4
    std = Speckle(std=[0.0, 0.15]).sample(n, torch_generator(0))["std"]
    assert stats.kstest(std.numpy(), "uniform", (0, 0.15)).pvalue > 1e-4
    assert math.isclose(float(std.mean()), 0.075, rel_tol=0.05)
