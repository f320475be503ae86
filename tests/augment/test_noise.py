from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from medssl.augment.noise import gaussian_noise, mix, uniform_noise


def reference(counter: int, low: int, high: int) -> int:
    """The mixer in Python's unbounded integers."""
    x = (counter + low) % 2**32
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x ^= high
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


def signed(words: list) -> torch.Tensor:
    """Words of 32 bits as int32 holds them."""
    return torch.from_numpy(np.array(words, np.uint32).view(np.int32))


def test_the_mixer_is_exact_32_bit_arithmetic():
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 123456789]
    keys = [[a, b] for a in edges for b in edges]
    hashed = mix(signed(edges), signed(keys))
    assert hashed.dtype == torch.int32
    expected = [[reference(counter, a, b) for counter in edges] for a, b in keys]
    assert (hashed.long() & 0xFFFFFFFF).tolist() == expected


def test_known_values_do_not_change():
    """Recorded once: a change would break the resumption of runs."""
    seeds = torch.tensor([0, 1, 2**62 + 12345])
    bits = (uniform_noise(seeds, 3) * 2**24).long().tolist()
    assert bits == KNOWN


KNOWN = [[5367123, 10723370, 4390132], [16152124, 1731000, 10347695], [10727955, 14799142, 12639383]]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_uniform(seed):
    u = uniform_noise(torch.tensor([seed]), 200_000)[0].numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    lags = [np.corrcoef(u[:-lag], u[lag:])[0, 1] for lag in (1, 2, 64, 224)]
    assert np.abs(lags).max() < 5 / np.sqrt(len(u))
    bits = ((u * 2**24).astype(np.int64)[:, None] >> np.arange(24)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(u))


def test_gaussian():
    noise = gaussian_noise(torch.tensor([3]), (500, 400)).numpy().ravel()
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert np.abs([noise.mean(), noise.std() - 1]).max() < 0.01
    assert stats.kurtosis(noise) == pytest.approx(0, abs=0.05)
    assert np.isfinite(noise).all()
    assert 3.5 < np.abs(noise).max() <= 4.9
    halves = noise.reshape(2, -1)
    assert abs(np.corrcoef(halves)[0, 1]) < 0.015, "cosine and sine of one pair must not go together"


def test_samples_are_independent_also_of_neighbouring_seeds():
    seeds = torch.cat([torch.arange(100), 2**32 * torch.arange(1, 101)])
    noise = gaussian_noise(seeds, (1, 64, 64)).flatten(1).numpy()
    correlation = np.corrcoef(noise) - np.eye(len(seeds))
    assert np.abs(correlation).max() < 6 / 64
    assert np.abs(noise.mean(0)).max() < 6 / np.sqrt(len(seeds)), "some pixel is biased over all samples"


def test_noise_of_a_sample_does_not_depend_on_the_batch():
    seeds = torch.tensor([5, 9, 2**63 - 1])
    together = gaussian_noise(seeds, (1, 9, 7))
    assert together.shape == (3, 1, 9, 7)
    for i in range(3):
        assert torch.equal(gaussian_noise(seeds[i : i + 1], (1, 9, 7))[0], together[i])


def test_the_bound():
    """The outermost of 2^16 quantiles is that of half a step."""
    noise = gaussian_noise(torch.arange(40), (100_000,))
    assert noise.isfinite().all()
    assert noise.abs().max() == pytest.approx(stats.norm.isf(2.0**-17), abs=1e-5)
    assert noise.abs().max() < 4.4


def test_any_shape_also_of_an_odd_count():
    assert gaussian_noise(torch.tensor([1, 2]), (3, 5, 7)).shape == (2, 3, 5, 7)
    assert gaussian_noise(torch.tensor([1]), (1,)).shape == (1, 1)
    assert gaussian_noise(torch.tensor([1]), (2, 3, 4, 5)).flatten().unique().numel() > 110


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_cpu_and_gpu():
    seeds = torch.randint(0, 2**63 - 1, (16,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniform_noise(seeds, 4096), uniform_noise(seeds.cuda(), 4096).cpu())
    torch.testing.assert_close(
        gaussian_noise(seeds, (1, 64, 64)), gaussian_noise(seeds.cuda(), (1, 64, 64)).cpu(), atol=1e-5, rtol=0
    )
