"""Why SimSiam does not collapse: the decomposition of Zhang et al. (2203.16262), re-enacted by surgery on the target of p.

The gradient at P_a = p_a / |p_a| is Z_b = P_b + G_e. Each run trains p towards another part of it.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.methods.collapse import std_sqrt_d
from medssl.methods.simsiam import negative_cosine

SEEDS, STEPS = (0, 1, 2), 150


def towards(target):
    """A loss of `SimSiam.embed`'s output: p of each view is drawn to `target(Z, P)` of the other one, both without gradient."""

    def loss(passed) -> Tensor:
        units = [(F.normalize(z, dim=1).detach(), F.normalize(p, dim=1)) for _, z, p in passed]
        (z1, p1), (z2, p2) = units
        sides = (p1 * target(z2, p2.detach())).sum(dim=1), (p2 * target(z1, p1.detach())).sum(dim=1)
        return -torch.stack(sides).mean()

    return loss


# Made once: a run is known by its loss.
WHOLE = towards(lambda z, p: z)
WITHOUT_EXTRA_GRADIENT = towards(lambda z, p: p)
WITH_ITS_CENTRE = towards(lambda z, p: p + z.mean(dim=0) - p.mean(dim=0))


def test_the_centre_and_the_residual_share_the_unit_length():
    """m_o^2 + E|r|^2 = 1 exactly, and the root mean square of the channels' std is m_r / sqrt(d)."""
    z = torch.randn(400, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    unit = F.normalize(z, dim=1)
    centre = unit.mean(dim=0)
    residual = (unit - centre).square().sum(dim=1).mean()
    assert float(centre.square().sum() + residual) == pytest.approx(1, abs=1e-12)
    assert 0.1 < float(centre.norm()) < 0.9
    channels = unit.var(dim=0, unbiased=False).mean().sqrt() * math.sqrt(96)
    assert float(channels) == pytest.approx(float(residual.sqrt()), abs=1e-12)
    assert float(std_sqrt_d(z)) == pytest.approx(float(channels), abs=5e-3)


def test_the_gradient_at_p_is_that_of_the_extra_part_alone():
    """G_e = Z_b - P_b: towards the own P the cosine has no slope, so that all of the slope at P_a = P_b is G_e's."""
    generator = torch.Generator().manual_seed(0)
    p, z = torch.randn(2, 30, 12, generator=generator, dtype=torch.float64)
    p.requires_grad_()
    (gradient,) = torch.autograd.grad(negative_cosine(p, z), p)
    unit, length = F.normalize(p, dim=1).detach(), p.detach().norm(dim=1, keepdim=True)
    extra = F.normalize(z, dim=1) - unit
    along = (extra * unit).sum(dim=1, keepdim=True) * unit
    torch.testing.assert_close(gradient, -(extra - along) / (length * len(p)), atol=1e-12, rtol=0)
    (towards_itself,) = torch.autograd.grad(negative_cosine(p, p.detach()), p)
    assert towards_itself.abs().max() < 1e-12


def test_the_surgery_with_the_whole_target_is_simsiam(toy):
    with toy.one_thread():
        method = toy.build()
        generator = torch.Generator().manual_seed(0)
        views = [torch.rand(16, 1, 16, 16, generator=generator) for _ in range(2)]
        own = method(toy.Batch(views)).loss
        torch.testing.assert_close(WHOLE([method.embed(view) for view in views]), own, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_the_extra_gradient_p_collapses(toy, seed):
    """p drawn to P_b: m_o(p) > 0.9 by step 150; a BN keeps z apart, so that only p shows it. SimSiam's own p stays apart."""
    figures = toy.trained(STEPS, seed, loss=WITHOUT_EXTRA_GRADIENT)
    assert figures.center_p > 0.9
    assert figures.center_z < 0.5
    assert figures.loss < -0.95
    assert toy.trained(STEPS, seed).center_p < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_centre_of_the_extra_gradient_is_enough_to_keep_p_apart(toy, seed):
    """p drawn to P_b + o_e, where o_e = o_z - o_p: m_o(p) < 0.3."""
    assert toy.trained(STEPS, seed, loss=WITH_ITS_CENTRE).center_p < 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_simsiam_takes_about_half_of_the_centre_away(toy, seed):
    """o_e is about -eta o_p, with eta between 0.25 and 0.65: de-centring."""
    assert 0.25 < toy.trained(STEPS, seed).eta < 0.65


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bias_alone_as_predictor_works_against_collapse(toy, seed):
    """Without output BN the identity collapses, to m_o > 0.98; a vector added to z / |z| keeps it below 0.95."""
    assert toy.trained(STEPS, seed, batch_norm="hidden", predictor="none").center_z > 0.98
    assert toy.trained(STEPS, seed, batch_norm="hidden", predictor="bias_only").center_z < 0.95
