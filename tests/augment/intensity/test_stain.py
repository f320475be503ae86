from __future__ import annotations

import numpy as np
import pytest
import torch

from medssl.augment.intensity.stain import StainJitter
from medssl.seeds import torch_generator


def tissue(n: int, side: int = 16) -> torch.Tensor:
    """Images whose three stains are all there: skimage cuts negative densities off, which light that no stain makes would have."""
    color = pytest.importorskip("skimage.color")
    stains = np.random.default_rng(0).uniform(0.01, 0.09, (n, side, side, 3))
    return torch.from_numpy(np.stack([color.hed2rgb(s) for s in stains])).permute(0, 3, 1, 2).float()


def test_agrees_with_skimage():
    color = pytest.importorskip("skimage.color")
    images = tissue(5)
    jitter = StainJitter(scale=0.3, shift=0.008)
    drawn = jitter.sample(5, torch_generator(0))
    out = jitter.apply(images.clone(), drawn)
    assert (out - images).abs().mean() > 0.01
    for i in range(5):
        stains = color.rgb2hed(images[i].permute(1, 2, 0).double().numpy())
        changed = stains * drawn["alpha"][i].numpy() + drawn["beta"][i].numpy()
        np.testing.assert_allclose(out[i].permute(1, 2, 0).numpy(), color.hed2rgb(changed), atol=2e-5)


def test_agrees_with_the_formula_where_skimage_is_not_at_hand():
    """Also where a stain's density is negative, which stays as it is here."""
    images = torch.rand(4, 3, 9, 9)
    jitter = StainJitter(scale=0.2, shift=0.02)
    drawn = jitter.sample(4, torch_generator(1))
    out = jitter.apply(images.clone(), drawn)
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    log_floor = np.log(1e-6)
    for i in range(4):
        rgb = np.maximum(images[i].permute(1, 2, 0).double().numpy(), 1e-6)
        density = np.log(rgb) / log_floor @ np.linalg.inv(stains)
        density = density * drawn["alpha"][i].double().numpy() + drawn["beta"][i].double().numpy()
        expected = np.exp(density @ stains * log_floor).clip(0, 1)
        np.testing.assert_allclose(out[i].permute(1, 2, 0).numpy(), expected, atol=5e-5)


def test_alpha_1_and_beta_0_change_nothing():
    images = torch.rand(3, 3, 8, 8).clamp_min(1e-3)
    out = StainJitter().apply(images.clone(), {"alpha": torch.ones(3, 3), "beta": torch.zeros(3, 3)})
    torch.testing.assert_close(out, images, atol=1e-5, rtol=0)


def test_bare_glass_stays_white_unless_shifted():
    white = torch.ones(1, 3, 4, 4)
    scaled = StainJitter().apply(white.clone(), {"alpha": torch.full((1, 3), 1.4), "beta": torch.zeros(1, 3)})
    torch.testing.assert_close(scaled, white, atol=1e-5, rtol=0)
    tinted = StainJitter().apply(white.clone(), {"alpha": torch.ones(1, 3), "beta": torch.tensor([[0.02, 0.0, 0.0]])})
    assert tinted[0, :, 0, 0].tolist() == pytest.approx([1e-6 ** (0.02 * h) for h in (0.65, 0.70, 0.29)], abs=1e-5)


def test_a_pure_stain_is_scaled_by_its_own_factor():
    eosin = torch.tensor([0.07, 0.99, 0.11])
    images = torch.exp(-0.5 * eosin).view(1, 3, 1, 1)
    out = StainJitter().apply(images.clone(), {"alpha": torch.tensor([[1.3, 0.8, 1.2]]), "beta": torch.zeros(1, 3)})
    torch.testing.assert_close(out.flatten(), torch.exp(-0.4 * eosin), atol=1e-5, rtol=0)


def test_draws_are_in_their_ranges():
    drawn = StainJitter(scale=0.15, shift=0.01).sample(10_000, torch_generator(0))
    from scipy import stats

    for i in range(3):
        assert stats.kstest(drawn["alpha"][:, i].numpy(), "uniform", (0.85, 0.3)).pvalue > 1e-4
        assert stats.kstest(drawn["beta"][:, i].numpy(), "uniform", (-0.01, 0.02)).pvalue > 1e-4
    assert "H" in StainJitter().describe(drawn, 0)
