from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import GibbsNoise, RandBiasField, RandRicianNoise
from scipy import stats

from medssl.augment.intensity.mr import DEGREE, BiasField, Ghosting, Gibbs, RicianNoise, legendre
from medssl.seeds import torch_generator


@pytest.mark.parametrize("spatial", [(17, 24), (8, 9, 10)], ids=["2D", "3D"])
def test_the_bias_field_agrees_with_monai(spatial):
    dims = len(spatial)
    coefficients = torch.zeros(1, *[DEGREE + 1] * 3)
    if dims == 2:
        at = np.tril_indices(DEGREE + 1)
        coeff = np.random.default_rng(0).uniform(-0.3, 0.3, len(at[0]))
        coefficients[0, 0][at] = torch.from_numpy(coeff).float()
    else:
        degrees = range(DEGREE + 1)
        at = [(i, j, k) for i in degrees for j in degrees for k in degrees if i + j + k <= DEGREE]
        coeff = np.random.default_rng(0).uniform(-0.3, 0.3, len(at))
        for place, value in zip(at, coeff, strict=True):
            coefficients[0][place] = float(value)
    expected = RandBiasField()._generate_random_field(spatial, DEGREE, list(coeff))
    field = legendre(coefficients[:, 0] if dims == 2 else coefficients, spatial)
    np.testing.assert_allclose(field[0].numpy(), expected, atol=1e-5)
    images = torch.rand(1, 1, *spatial) * 0.3
    out = BiasField().apply(images.clone(), {"coefficients": coefficients})
    np.testing.assert_allclose(out[0, 0].numpy(), (images[0, 0].numpy() * np.exp(expected)).clip(0, 1), atol=1e-5)


def test_bias_fields_have_no_constant_no_higher_degree_and_the_drawn_strength():
    drawn = BiasField(strength=[0.3, 0.3]).sample(5000, torch_generator(0))["coefficients"]
    degree = torch.arange(DEGREE + 1)
    total = degree[:, None, None] + degree[:, None] + degree
    assert drawn[:, (total == 0) | (total > DEGREE)].eq(0).all()
    used = drawn[:, (total > 0) & (total <= DEGREE)]
    assert stats.kstest(used[:, 0].numpy(), "uniform", (-0.3, 0.6)).pvalue > 1e-4
    assert used.abs().max() <= 0.3
    images = torch.rand(2, 1, 8, 8)
    none = BiasField(strength=[0.0, 0.0]).sample(2, torch_generator(0))
    torch.testing.assert_close(BiasField().apply(images.clone(), none), images)


@pytest.mark.parametrize("level", [0.0, 0.02, 0.1, 0.5])
def test_rician_noise_agrees_with_monai_in_mean_and_deviation(level):
    std = 0.04
    images = torch.full((1, 1, 200, 200), level)
    ours = RicianNoise().apply(images.clone(), {"std": torch.tensor([std]), "seed": torch.tensor([5])})
    monai = RandRicianNoise(prob=1.0, std=std, sample_std=False)
    monai.set_random_state(0)
    theirs = torch.as_tensor(monai(images[0].numpy()))
    assert ours.mean() == pytest.approx(float(theirs.mean()), abs=0.0015)
    assert ours.std() == pytest.approx(float(theirs.std()), rel=0.03)
    distribution = stats.rice(level / std, scale=std)
    assert stats.kstest(ours.flatten().numpy()[::4], distribution.cdf).pvalue > 1e-4


def test_no_deviation_no_strength_no_alpha_change_nothing():
    for spatial in ((13, 16), (6, 7, 8)):
        images = torch.rand(2, 1, *spatial)
        zero = torch.zeros(2)
        same = {
            "rician": RicianNoise().apply(images.clone(), {"std": zero, "seed": torch.tensor([1, 2])}),
            "gibbs": Gibbs().apply(images.clone(), {"alpha": zero}),
            "ghosting": Ghosting().apply(images.clone(), {"strength": zero, "ghosts": torch.full((2,), 3.0), "axis": zero}),
        }
        for name, out in same.items():
            torch.testing.assert_close(out, images, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("spatial", [(31, 31), (21, 33), (11, 13, 15)], ids=["square", "oblong", "3D"])
def test_gibbs_ringing_agrees_with_monai_on_odd_sides(spatial, alpha):
    images = torch.rand(1, 1, *spatial)
    out = Gibbs().apply(images.clone(), {"alpha": torch.tensor([alpha])})
    expected = torch.as_tensor(GibbsNoise(alpha)(images[0])).clamp(0, 1)
    torch.testing.assert_close(out[0], expected, atol=1e-5, rtol=0)
    if alpha > 0.2 and len(spatial) == 2:
        assert (out - images).abs().max() > 0.1


def test_gibbs_ringing_is_near_monai_on_even_sides():
    """MONAI's circle is centred between two lines there: a rim of half a line is kept on one side only. Mean within 0.05."""
    images = torch.rand(1, 1, 32, 32)
    out = Gibbs().apply(images.clone(), {"alpha": torch.tensor([0.5])})
    difference = (out[0] - torch.as_tensor(GibbsNoise(0.5)(images[0])).clamp(0, 1)).abs().mean()
    assert difference < 0.05
    assert (out - images).abs().mean() > 2 * difference


def test_gibbs_rings_at_an_edge():
    images = torch.full((1, 1, 64, 64), 0.3)
    images[..., 24:40] = 0.6
    out = Gibbs().apply(images.clone(), {"alpha": torch.tensor([0.7])})
    assert out.max() > 0.62
    assert out.min() < 0.28
    torch.testing.assert_close(out.mean(), images.mean(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ghosts", [2, 4])
def test_ghosts_appear_at_a_fraction_of_the_side_along_the_drawn_axis(axis, ghosts):
    """A bright bar across the other axis: its repeats lie side / ghosts apart, and each has strength / ghosts of its brightness."""
    side, strength = 64, 0.5
    images = torch.zeros(1, 1, side, side)
    images.movedim(2 + axis, 0)[10] = 1
    drawn = {"strength": torch.tensor([strength]), "ghosts": torch.tensor([float(ghosts)]), "axis": torch.tensor([float(axis)])}
    out = Ghosting(spared=0.0).apply(images.clone(), drawn)
    line = out.movedim(2 + axis, 0)[:, 0, 0, 5]
    # The middle of k-space, line 0, is always spared: strength / side everywhere beside it.
    expected = torch.full((side,), strength / side)
    for k in range(ghosts):
        expected[(10 + k * side // ghosts) % side] += -strength / ghosts
    expected[10] += 1
    torch.testing.assert_close(line, expected.abs(), atol=1e-5, rtol=0)


def test_ghosts_of_a_volume_lie_in_the_plane():
    images = torch.zeros(1, 1, 8, 32, 32)
    images[0, 0, 3, 16, 16] = 1
    drawn = {"strength": torch.ones(1), "ghosts": torch.tensor([2.0]), "axis": torch.ones(1)}
    out = Ghosting().apply(images.clone(), drawn)
    assert out[0, 0, 3, 16, 0] > 0.3
    assert out[0, 0, [0, 1, 2, 4, 5, 6, 7]].abs().max() < 1e-6
    assert out[0, 0, 3, :16].abs().max() < 1e-6


def test_the_spared_middle_keeps_the_contrast():
    images = torch.rand(1, 1, 32, 32)
    drawn = {"strength": torch.ones(1), "ghosts": torch.tensor([2.0]), "axis": torch.zeros(1)}
    torch.testing.assert_close(Ghosting(spared=1.0).apply(images.clone(), drawn), images, atol=1e-5, rtol=0)
    assert (Ghosting(spared=0.04).apply(images.clone(), drawn) - images).abs().mean() > 0.02


def test_draws_are_in_their_ranges():
    n = 10_000
    drawn = Ghosting(strength=[0.1, 0.5], ghosts=[2, 6]).sample(n, torch_generator(0))
    assert stats.kstest(drawn["strength"].numpy(), "uniform", (0.1, 0.4)).pvalue > 1e-4
    values, counts = drawn["ghosts"].unique(return_counts=True)
    assert values.tolist() == [2, 3, 4, 5, 6]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert stats.binomtest(int(drawn["axis"].sum()), n, 0.5).pvalue > 1e-4
    alpha = Gibbs(alpha=[0.1, 0.45]).sample(n, torch_generator(0))["alpha"]
    assert stats.kstest(alpha.numpy(), "uniform", (0.1, 0.35)).pvalue > 1e-4
    std = RicianNoise(std=[0.0, 0.03]).sample(n, torch_generator(0))["std"]
    assert stats.kstest(std.numpy(), "uniform", (0, 0.03)).pvalue > 1e-4


def test_rician_noise_lifts_black_to_its_own_mean():
    out = RicianNoise().apply(torch.zeros(1, 1, 100, 100), {"std": torch.tensor([0.1]), "seed": torch.tensor([1])})
    assert out.mean() == pytest.approx(0.1 * math.sqrt(math.pi / 2), rel=0.02)
