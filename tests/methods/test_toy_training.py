"""The direction of collapse on a toy that trains in seconds: with and without stop-gradient, output BN and predictor.

The bounds hold on five seeds; the default run tries one of them.
"""

from __future__ import annotations

import pytest
import torch

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3, 4))]


@pytest.mark.parametrize("seed", SEEDS)
def test_without_output_bn_the_stop_gradient_alone_prevents_collapse(toy, seed):
    """By step 100 without stop-gradient std x sqrt(d) < 0.25 and m_o > 0.95; with it std x sqrt(d) > 0.70."""
    collapsed = toy.trained(100, seed, batch_norm="hidden", stop_gradient=False)
    assert collapsed.std < 0.25
    assert collapsed.center_z > 0.95
    assert toy.trained(100, seed, batch_norm="hidden").std > 0.70


@pytest.mark.parametrize("seed", SEEDS)
def test_the_default_head_keeps_spread_and_rank_with_the_stop_gradient_alone(toy, seed):
    """By step 100 std x sqrt(d) > 0.93 and rank > 45; without stop-gradient < 0.90 and < 32, at a lower loss."""
    healthy, collapsing = toy.trained(100, seed), toy.trained(100, seed, stop_gradient=False)
    assert healthy.std > 0.93
    assert healthy.rank > 45
    assert collapsing.std < 0.90
    assert collapsing.rank < 32
    assert collapsing.loss < healthy.loss - 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_predictor_std_is_silent_and_the_rank_falls(toy, seed):
    """No predictor: the std stays as high as a healthy run's, the rank falls below 32."""
    figures = toy.trained(100, seed, predictor="none")
    assert figures.std > 0.90
    assert figures.rank < 32
    assert figures.rank < 0.6 * toy.trained(100, seed).rank
    assert figures.loss < -0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fixed_random_predictor_does_not_converge_and_does_not_collapse(toy, seed):
    """Its loss stays above -0.35 at step 300, when the baseline is below -0.7; std x sqrt(d) stays high (2011.10566, table 1b)."""
    fixed = toy.trained(300, seed, predictor="fixed_random")
    assert fixed.loss > -0.35
    assert fixed.std > 0.90
    assert fixed.rank > 32
    assert toy.trained(300, seed).loss < -0.7


def test_a_run_of_the_toy_is_a_function_of_its_seed(toy):
    first, second = (toy.Training(seed=0, loss=None, settings={}).figures(50) for _ in range(2))
    assert first == second
    assert toy.Training(seed=1, loss=None, settings={}).figures(50) != first


def test_the_views_of_the_toy_are_drawn_for_each_sample(toy):
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16).repeat(8, 1, 1, 1)
    seen = toy.view(x, torch.Generator().manual_seed(0))
    assert seen.shape == x.shape
    # With noise of 0.3 alone two samples would differ by 0.42, root mean square.
    assert (seen[1:] - seen[:-1]).square().mean().sqrt() > 0.47
