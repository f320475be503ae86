from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from medssl.augment.intensity.tone import KNOTS, Gamma, HistogramWarp, Solarize, warp
from medssl.seeds import torch_generator


def test_gamma_is_the_exponent_of_each_sample():
    gamma = Gamma(exponent=[0.5, 2.0])
    drawn = gamma.sample(5000, torch_generator(0))
    out = gamma.apply(torch.full((5000, 1, 2, 2), 0.5), drawn)
    torch.testing.assert_close(out[:, 0, 0, 0], 0.5 ** drawn["exponent"])
    logs = drawn["exponent"].log().numpy()
    assert stats.kstest(logs, "uniform", (-math.log(2), 2 * math.log(2))).pvalue > 1e-4


def test_gamma_1_changes_nothing_and_black_and_white_always_stay():
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(Gamma().apply(images.clone(), {"exponent": torch.ones(2)}), images, atol=1e-6, rtol=0)
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(2, 1, 1, 1)
    assert torch.equal(Gamma().apply(ends.clone(), {"exponent": torch.tensor([0.1, 10.0])}), ends)


@pytest.mark.parametrize("spatial", [(9, 11), (4, 5, 6)], ids=["2D", "3D"])
def test_the_warp_agrees_with_numpy(spatial):
    images = torch.rand(6, 2, *spatial)
    images[:, 0].flatten(1)[:, :3] = torch.tensor([0.0, 1.0, 0.2])
    knots = torch.rand(6, 7).sort(1).values
    out = warp(images, knots)
    for i in range(6):
        expected = np.interp(images[i].numpy(), np.linspace(0, 1, 7), knots[i].numpy())
        np.testing.assert_allclose(out[i].numpy(), expected, atol=1e-6)


def test_warped_histograms_keep_the_order_and_the_ends():
    for strength in (0.3, 1.0):
        settings = HistogramWarp(strength=strength)
        knots = settings.sample(10_000, torch_generator(0))["knots"]
        assert knots.shape == (10_000, KNOTS + 2)
        assert (knots.diff(dim=1) >= -1e-6).all()
        assert knots[:, 0].eq(0).all()
        assert knots[:, -1].eq(1).all()
        most = strength / 2 / (KNOTS + 1)
        moved = (knots - torch.linspace(0, 1, KNOTS + 2))[:, 1:-1]
        assert stats.kstest(moved[:, 0].numpy(), "uniform", (-most, 2 * most)).pvalue > 1e-4
        assert moved.abs().max() <= most + 1e-6


def test_strength_0_warps_nothing():
    images = torch.rand(3, 1, 8, 8)
    drawn = HistogramWarp(strength=0.0).sample(3, torch_generator(0))
    torch.testing.assert_close(HistogramWarp().apply(images.clone(), drawn), images, atol=1e-6, rtol=0)


def test_solarisation_inverts_what_lies_above_the_threshold():
    images = torch.tensor([0.0, 0.49, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)
    out = Solarize().apply(images.clone(), {})
    assert out.flatten().tolist() == pytest.approx([0.0, 0.49, 0.5, 0.25, 0.0])
    assert Solarize(threshold=1.0).apply(images.clone(), {})[..., :4].equal(images[..., :4])
