"""The figures against their definitions in NumPy, against known sets of vectors, and at the ends of their ranges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medssl.methods.collapse import (
    alignment,
    correlation,
    effective_rank,
    gaussian_rank,
    mean_and_residual,
    singular_value_auc,
    std_sqrt_d,
    uniformity,
)

OF_ONE_SET = [
    std_sqrt_d,
    lambda z: mean_and_residual(z)[0],
    lambda z: mean_and_residual(z)[1],
    effective_rank,
    singular_value_auc,
    correlation,
    uniformity,
]


def gaussian(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def uneven() -> torch.Tensor:
    """(90, 40): channels of unlike spread, mixed, with a common mean."""
    return (gaussian(90, 40) * torch.linspace(0.05, 1, 40)) @ gaussian(40, 40, 1) + 2


@pytest.mark.parametrize(("rows", "expected"), [(32, 0.992), (256, 0.999)])
def test_std_of_a_gaussian(rows, expected):
    values = [float(std_sqrt_d(gaussian(rows, 128, seed))) for seed in range(20)]
    assert np.mean(values) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("rows", [32, 256])
def test_the_mean_of_a_gaussian_is_as_long_as_chance_makes_it(rows):
    values = [float(mean_and_residual(gaussian(rows, 128, seed))[0]) for seed in range(20)]
    assert np.mean(values) == pytest.approx(1 / math.sqrt(rows), rel=0.05)


def test_mean_and_residual_are_two_parts_of_one(uneven):
    for z in (uneven, gaussian(300, 64), gaussian(300, 64) + 9):
        mean, residual = mean_and_residual(z)
        assert float(mean**2 + residual**2) == pytest.approx(1, abs=1e-12)
        channels = F.normalize(z.double(), dim=1).var(dim=0, unbiased=False).mean().sqrt() * math.sqrt(z.shape[1])
        assert float(channels) == pytest.approx(math.sqrt(1 - float(mean) ** 2), abs=1e-12)
        assert float(channels) == pytest.approx(float(residual), abs=1e-12)


def test_effective_rank_equals_its_definition(uneven):
    singular = np.linalg.svd(uneven.double().numpy(), compute_uv=False)
    share = singular / singular.sum() + 1e-7
    assert float(effective_rank(uneven)) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)
    assert float(effective_rank(uneven.T)) == pytest.approx(float(effective_rank(uneven)), rel=1e-9)


def test_effective_rank_of_known_matrices():
    basis = torch.linalg.qr(gaussian(64, 8))[0]
    assert float(effective_rank(basis)) == pytest.approx(8, abs=1e-3)
    assert float(effective_rank(torch.ones(100, 30))) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank(torch.zeros(10, 3))) == 1
    assert 1 <= float(effective_rank(basis @ gaussian(8, 512))) <= 8.01


def test_the_gaussian_reference_is_fixed():
    first = gaussian_rank(256, 64)
    gaussian_rank.cache_clear()
    assert gaussian_rank(256, 64) == first
    assert 60 < first <= 64


@pytest.mark.parametrize("transposed", [False, True])
def test_auc_equals_its_definition(uneven, transposed):
    z = (uneven.T if transposed else uneven).double().numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    singular = np.linalg.svd(unit - unit.mean(0), compute_uv=False)[: min(len(z) - 1, z.shape[1])]
    expected = (np.cumsum(singular) / singular.sum()).mean()
    assert float(singular_value_auc(torch.from_numpy(z))) == pytest.approx(expected, rel=1e-9)


def test_auc_at_the_ends_of_its_range():
    orthogonal = torch.eye(30)
    assert float(singular_value_auc(torch.cat([orthogonal, -orthogonal]))) == pytest.approx(31 / 60, abs=1e-6)
    line = gaussian(50, 1) @ gaussian(1, 20, 1)
    assert float(singular_value_auc(line)) == pytest.approx(1, abs=1e-6)
    assert float(singular_value_auc(torch.ones(50, 20))) == 1


def test_correlation_equals_its_definition(uneven):
    matrix = np.abs(np.corrcoef(uneven.double().numpy(), rowvar=False))
    expected = matrix[~np.eye(40, dtype=bool)].mean()
    assert float(correlation(uneven)) == pytest.approx(expected, abs=1e-5)


def test_correlation_leaves_constant_channels_out():
    z = gaussian(60, 8)
    with_constants = torch.cat([z, torch.full((60, 3), 0.1), torch.zeros(60, 1)], dim=1)
    assert float(correlation(with_constants)) == pytest.approx(float(correlation(z)), abs=1e-6)
    assert float(correlation(torch.ones(60, 8))) == 1
    assert float(correlation(torch.cat([z[:, :1], torch.ones(60, 3)], dim=1))) == 1


def test_correlation_of_known_sets():
    assert float(correlation(gaussian(1024, 128))) == pytest.approx(math.sqrt(2 / (math.pi * 1024)), rel=0.02)
    assert float(correlation(gaussian(50, 1) @ gaussian(1, 20, 1))) == pytest.approx(1, abs=1e-5)


def test_alignment_equals_its_definition():
    first, second = gaussian(50, 16).double(), gaussian(50, 16, 1).double()
    cosine = F.cosine_similarity(first, second, dim=1)
    assert float(alignment(first, second)) == pytest.approx(float((2 - 2 * cosine).mean()), abs=1e-6)
    assert float(alignment(first, first * 3)) == pytest.approx(0, abs=1e-6)
    assert float(alignment(first, -first)) == pytest.approx(4, abs=1e-5)


def test_uniformity_equals_its_definition():
    z = gaussian(40, 6).numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    potentials = [np.exp(-2 * np.sum((unit[i] - unit[j]) ** 2)) for i in range(40) for j in range(i)]
    assert float(uniformity(torch.from_numpy(z))) == pytest.approx(np.log(np.mean(potentials)), abs=1e-5)
    assert float(uniformity(torch.ones(40, 6))) == pytest.approx(0, abs=1e-5)
    assert float(uniformity(torch.tensor([[1.0, 0], [-1, 0]]))) == pytest.approx(-8, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", OF_ONE_SET)
def test_what_is_not_finite_is_unknown(figure, bad):
    z = gaussian(20, 5)
    z[3, 2] = bad
    assert math.isnan(float(figure(z)))


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (4,), (2, 3, 4), (5, 0)])
@pytest.mark.parametrize("figure", OF_ONE_SET)
def test_other_shapes_are_refused(figure, shape):
    with pytest.raises(ValueError, match=r"expected \(n >= 2, d\)"):
        figure(torch.zeros(shape))


def test_views_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="twice"):
        alignment(torch.zeros(3, 4), torch.zeros(4, 4))
    z = gaussian(5, 4)
    z[0, 0] = math.nan
    assert math.isnan(float(alignment(z, z)))
