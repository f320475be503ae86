"""Noise as a function of (sample seed, pixel index): no generator, so the same on every device, rank and resumed run.

The hash is an integer mixer of multiplications, exclusive-ors and shifts on 32 bits. It is held in int32, whose products wrap
around in two's complement on every device that torch has; half the memory traffic of int64 is twice the speed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_FIRST, _SECOND = 0x21F0AAAD, 0x735A2D97  # odd, found by search for low bias (C. Wellons, hash-prospector, issue 19)


def mix(counter: Tensor, key: Tensor) -> Tensor:
    """Hash of counters under keys: 32 bits as int32.

    Args:
        counter: (P,) int32.
        key: (N, 2) int32; the second word enters between the two multiplications, so that two keys never give shifted
            copies of one sequence.
    Returns:
        (N, P) int32.
    """
    x = counter + key[:, :1]
    x ^= (x >> 16) & 0xFFFF  # the mask undoes the copies of the sign that >> shifts in
    x *= _FIRST
    x ^= (x >> 15) & 0x1FFFF
    x ^= key[:, 1:]
    x *= _SECOND
    x ^= (x >> 15) & 0x1FFFF
    return x


def uniform_noise(seed: Tensor, count: int) -> Tensor:
    """(N, count) float32 in [0, 1), multiples of 2^-24, bit for bit the same on every device.

    Args:
        seed: (N,) int64 >= 0, one a sample.
    """
    counter = torch.arange(count, device=seed.device, dtype=torch.int32)
    return ((mix(counter, _keys(seed)) >> 8) & 0xFFFFFF).float() * 2.0**-24


def gaussian_noise(seed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(N, *shape) float32, standard normal by Box-Muller; |noise| <= 4.9.

    Each hash gives two numbers of 16 bits, and they two normal ones: twice as fast as a hash a number, and 2^-16 is far finer
    than any image. Logarithm and cosine may differ between devices in the last bits.

    Args:
        seed: (N,) int64 >= 0, one a sample.
        shape: of one sample's noise, such as (C, H, W).
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    counter = torch.arange(pairs, device=seed.device, dtype=torch.int32)
    bits = mix(counter, _keys(seed))
    # In the middle of its step of 2^-16, so that the logarithm is finite.
    radius = (((bits >> 16) & 0xFFFF).float().add_(0.5)).mul_(2.0**-16).log_().mul_(-2).sqrt_()
    angle = (bits & 0xFFFF).float().mul_(2.0**-16 * 2 * math.pi)
    noise = torch.empty(len(seed), 2 * pairs, device=seed.device)
    torch.cos(angle, out=noise[:, :pairs])
    torch.sin(angle, out=noise[:, pairs:])
    noise[:, :pairs] *= radius
    noise[:, pairs:] *= radius
    return noise[:, :count].reshape(-1, *shape)


def _keys(seed: Tensor) -> Tensor:
    """(N, 2) int32: both halves of each 63-bit seed, mixed, so that seeds 1 and 2 are as far apart as any."""
    halves = torch.stack([_int32(seed), _int32(seed >> 32)], dim=1)
    first = mix(torch.zeros(1, dtype=torch.int32, device=seed.device), halves)
    second = mix(torch.ones(1, dtype=torch.int32, device=seed.device), halves.flip(1))
    return torch.cat([first, second], dim=1)


def _int32(values: Tensor) -> Tensor:
    """The low 32 bits as int32, without a conversion that overflows."""
    low = values & _MASK
    return torch.where(low >= 2**31, low - 2**32, low).to(torch.int32)
