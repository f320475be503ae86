from __future__ import annotations

import pytest
import torch
from scipy import stats

from medssl.augment.intensity.ct import CtKernel, CtNoise
from medssl.seeds import torch_generator

LOW, WIDTH = -1000.0, 2000.0  # HU at 0 and per 1 of window coordinates


def noise_at(hu: float, std: float, spatial: tuple[int, ...] = (96, 96), n: int = 4) -> torch.Tensor:
    """The noise in HU, away from the edges, which are filtered over fewer pixels."""
    images = torch.full((n, 1, *spatial), (hu - LOW) / WIDTH)
    drawn = {"std": torch.full((n,), std), "seed": torch.arange(n) + 10}
    out = CtNoise().apply(images.clone(), drawn | {"low": torch.full((n,), LOW), "width": torch.full((n,), WIDTH)})
    return ((out - images) * WIDTH)[(..., *[slice(4, -4)] * len(spatial))]


@pytest.mark.parametrize("spatial", [(96, 96), (28, 28, 28)], ids=["2D", "3D"])
def test_in_water_the_deviation_is_the_drawn_one_in_hu(spatial):
    for std in (5.0, 20.0):
        assert noise_at(0, std, spatial).std() == pytest.approx(std, rel=0.03)
        assert noise_at(0, std, spatial).mean() == pytest.approx(0, abs=0.05 * std)


def test_more_in_bone_less_in_lung_as_the_root_of_attenuation():
    assert noise_at(1000, 10.0).std() == pytest.approx(10 * 2**0.5, rel=0.03)
    assert noise_at(-800, 10.0).std() == pytest.approx(10 * 0.2**0.5, rel=0.03)
    assert noise_at(-1000, 10.0).std() == pytest.approx(10 * 0.1**0.5, rel=0.03), "air has a floor"


def test_neighbours_go_together_and_far_pixels_do_not():
    noise = noise_at(0, 10.0)
    near = torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]
    far = torch.corrcoef(torch.stack([noise[..., 8:].flatten(), noise[..., :-8].flatten()]))[0, 1]
    assert 0.1 < near < 0.9
    assert abs(far) < 0.05


def test_the_window_does_not_change_the_noise_in_hu():
    seed = {"std": torch.tensor([10.0]), "seed": torch.tensor([3])}
    found = []
    for low, width in ((-1000.0, 2000.0), (-160.0, 400.0)):
        images = torch.full((1, 1, 20, 20), (40.0 - low) / width)
        out = CtNoise().apply(images.clone(), seed | {"low": torch.tensor([low]), "width": torch.tensor([width])})
        found.append((out - images) * width)
    torch.testing.assert_close(*found, atol=2e-3, rtol=0)


def test_no_deviation_and_no_amount_change_nothing_even_beyond_the_window():
    images = torch.randn(2, 1, 12, 12) * 3
    ends = {"low": torch.full((2,), LOW), "width": torch.full((2,), WIDTH)}
    drawn = {"std": torch.zeros(2), "seed": torch.tensor([1, 2])} | ends
    assert torch.equal(CtNoise().apply(images.clone(), drawn), images)
    assert torch.equal(CtKernel().apply(images.clone(), {"amount": torch.zeros(2), "sigma": torch.ones(2)}), images)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_sharp_kernel_overshoots_at_an_edge_and_a_smooth_one_blurs_it(dims):
    images = torch.zeros(3, 1, *[20] * dims)
    images[..., 10:] = 1
    out = CtKernel().apply(images.clone(), {"amount": torch.tensor([0.5, -0.5, -1.0]), "sigma": torch.ones(3)})
    slope = (out[..., 10] - out[..., 9]).flatten(1).mean(1)
    assert slope[0] > 1.2
    assert 0.3 < slope[2] < slope[1] < 0.9
    assert out[0].max() > 1.1
    assert out[0].min() < -0.1
    torch.testing.assert_close(out[..., 0], torch.zeros_like(out[..., 0]), atol=1e-5, rtol=0)


def test_draws_are_in_their_ranges():
    drawn = CtKernel(amount=0.5, sigma=[0.6, 1.2]).sample(10_000, torch_generator(0))
    assert stats.kstest(drawn["amount"].numpy(), "uniform", (-0.5, 1.0)).pvalue > 1e-4
    assert stats.kstest(drawn["sigma"].numpy(), "uniform", (0.6, 0.6)).pvalue > 1e-4
    assert CtKernel(amount=2.0).sample(1000, torch_generator(0))["amount"].min() == -1, "below, the image would be inverted"
    noise = CtNoise(std=[5.0, 25.0]).sample(10_000, torch_generator(0))
    assert stats.kstest(noise["std"].numpy(), "uniform", (5, 20)).pvalue > 1e-4
    assert noise["seed"].unique().numel() == 10_000
