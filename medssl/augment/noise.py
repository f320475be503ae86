"""Noise as a function of (sample seed, pixel index): no generator, so the same on every device, rank and resumed run.

The hash is an integer mixer of multiplications, exclusive-ors and shifts on 32 bits, held in int64: constants are below
2^31, so no product leaves 63 bits and nothing rests on how a device overflows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_FIRST, _SECOND = 0x21F0AAAD, 0x735A2D97  # odd, found by search for low bias (C. Wellons, hash-prospector, issue 19)


def mix(counter: Tensor, key: Tensor) -> Tensor:
    """Hash of counters under keys: int64 in [0, 2^32).

    Args:
        counter: (P,) int64 in [0, 2^32).
        key: (N, 2) int64 in [0, 2^32); the second word enters between the two multiplications, so that two keys never
            give shifted copies of one sequence.
    Returns:
        (N, P) int64.
    """
    x = (counter + key[:, :1]) & _MASK
    x ^= x >> 16
    x *= _FIRST
    x &= _MASK
    x ^= x >> 15
    x ^= key[:, 1:]
    x *= _SECOND
    x &= _MASK
    x ^= x >> 15
    return x


def uniform_noise(seed: Tensor, count: int) -> Tensor:
    """(N, count) float32 in [0, 1), multiples of 2^-24, bit for bit the same on every device.

    Args:
        seed: (N,) int64 >= 0, one a sample.
    """
    counter = torch.arange(count, device=seed.device)
    return (mix(counter, _keys(seed)) >> 8).float() * 2.0**-24


def gaussian_noise(seed: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, height, width) float32, standard normal by Box-Muller; |noise| <= 5.9.

    Uniforms are bit-identical on every device; logarithm and cosine may differ between devices in the last bits.

    Args:
        seed: (N,) int64 >= 0, one a sample.
    """
    pixels = height * width
    pairs = (pixels + 1) // 2
    u = uniform_noise(seed, 2 * pairs)
    # u is below 1, so 1 - u is above 0 and its logarithm finite.
    radius = (1 - u[:, :pairs]).log_().mul_(-2).sqrt_()
    angle = u[:, pairs:] * (2 * math.pi)
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return noise[:, :pixels].reshape(-1, 1, height, width)


def _keys(seed: Tensor) -> Tensor:
    """(N, 2): both halves of each 63-bit seed, mixed, so that seeds 1 and 2 are as far apart as any."""
    halves = torch.stack([seed & _MASK, seed >> 32], dim=1)
    first = mix(torch.zeros(1, dtype=torch.int64, device=seed.device), halves)
    second = mix(torch.ones(1, dtype=torch.int64, device=seed.device), halves.flip(1))
    return torch.cat([first, second], dim=1)
