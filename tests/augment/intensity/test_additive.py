from __future__ import annotations

import pytest
import torch
from scipy import stats

from medssl.augment.intensity.additive import Noise
from medssl.seeds import torch_generator


@pytest.mark.parametrize("spatial", [(64, 64), (16, 16, 16)], ids=["2D", "3D"])
def test_noise_has_the_drawn_strength_and_stays_in_range(spatial):
    noise = Noise(std=[0.01, 0.1])
    drawn = noise.sample(20, torch_generator(0))
    out = noise.apply(torch.full((20, 1, *spatial), 0.5), drawn)
    torch.testing.assert_close(out.flatten(1).std(1), drawn["std"], rtol=0.06, atol=0)
    for edge in (0.0, 1.0):
        clamped = noise.apply(torch.full((20, 1, *spatial), edge), drawn)
        assert clamped.min() >= 0
        assert clamped.max() <= 1
        assert clamped.unique().numel() > 1


def test_noise_is_normal_and_of_its_own_in_every_channel():
    drawn = {"std": torch.tensor([0.05]), "seed": torch.tensor([7])}
    out = (Noise().apply(torch.full((1, 3, 100, 100), 0.5), drawn) - 0.5) / 0.05
    assert stats.kstest(out.flatten().numpy(), "norm").pvalue > 1e-3
    channels = torch.corrcoef(out[0].flatten(1)) - torch.eye(3)
    assert channels.abs().max() < 0.05


def test_no_deviation_changes_nothing():
    images = torch.rand(2, 1, 8, 8)
    drawn = {"std": torch.zeros(2), "seed": torch.tensor([1, 2])}
    assert torch.equal(Noise().apply(images.clone(), drawn), images)
