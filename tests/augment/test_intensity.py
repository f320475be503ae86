from __future__ import annotations

import pytest
import torch

from medssl.augment.intensity import IntensityRanges, apply_intensity, sample_intensity


def draw(n: int, **ranges) -> dict[str, torch.Tensor]:
    return sample_intensity(n, torch.Generator().manual_seed(0), IntensityRanges(**ranges))


def test_defaults_change_nothing():
    views = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(apply_intensity(views.clone(), draw(4), cutout=True), views)


def test_gamma_is_the_exponent_of_each_sample():
    views = torch.full((50, 1, 2, 2), 0.5)
    parameters = draw(50, gamma=(0.5, 2.0))
    out = apply_intensity(views.clone(), parameters)
    torch.testing.assert_close(out[:, 0, 0, 0], 0.5 ** parameters["gamma"])
    assert parameters["gamma"].log().mean().abs() < 0.2
    assert out.unique().numel() == 50


def test_noise_has_the_drawn_strength_and_stays_in_range():
    parameters = draw(20, noise=(0.01, 0.1))
    out = apply_intensity(torch.full((20, 1, 64, 64), 0.5), parameters)
    torch.testing.assert_close(out.std((1, 2, 3)), parameters["noise"], rtol=0.05, atol=0)
    edge = apply_intensity(torch.ones(20, 1, 64, 64), parameters)
    assert edge.max() == 1
    assert edge.min() >= 0


def test_cutout_blanks_the_drawn_share():
    parameters = draw(400, cutout=0.5, cutout_area=(0.1, 0.1))
    out = apply_intensity(torch.ones(400, 1, 100, 100), parameters, cutout=True)
    share = out.eq(0).float().mean((1, 2, 3))
    blanked = share > 0
    assert blanked.float().mean() == pytest.approx(0.5, abs=0.08)
    torch.testing.assert_close(share[blanked], torch.full_like(share[blanked], 0.1), atol=0.01, rtol=0)


def test_every_draw_is_taken_whatever_the_ranges():
    """So that switching one thing off leaves the others of a study as they were."""
    some, more = draw(5, gamma=(0.5, 2.0)), draw(5, gamma=(0.5, 2.0), noise=(0.0, 0.1), cutout=1.0)
    assert torch.equal(some["gamma"], more["gamma"])
    assert torch.equal(some["noise_seed"], more["noise_seed"])
