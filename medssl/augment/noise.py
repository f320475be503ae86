"""Noise as a function of (sample seed, pixel index): no generator, so the same on every device, rank and resumed run.

The hash is an integer mixer of multiplications, exclusive-ors and shifts on 32 bits. It is held in int32, whose products wrap
around in two's complement on every device that torch has; half the memory traffic of int64 is twice the speed.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_FIRST, _SECOND = 0x21F0AAAD, 0x735A2D97  # odd, found by search for low bias (C. Wellons, hash-prospector, issue 19)


_BLOCK = 2**18


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
    """(N, *shape) float32, standard normal, |noise| <= 4.4; bit for bit the same on every device.

    Each hash gives two numbers of 16 bits, and each of them looks up a quantile of the normal distribution: half the time of
    logarithms and cosines, whose last bits would hang on the device besides. 2^16 levels are finer than any image.

    Args:
        seed: (N,) int64 >= 0, one a sample.
        shape: of one sample's noise, such as (C, H, W).
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    counter, keys = torch.arange(pairs, device=seed.device, dtype=torch.int32), _keys(seed)
    table = _quantiles(seed.device)[None]
    noise = torch.empty(len(seed), 2 * pairs, device=seed.device)
    # A few samples at a time on a CPU: the hashes then stay in the cache, and their memory is not asked of the system anew.
    step = len(seed) if seed.is_cuda or torch.compiler.is_compiling() else max(1, _BLOCK // pairs)
    for start in range(0, len(seed), step):
        bits = mix(counter, keys[start : start + step])
        levels = bits.view(torch.int16).long().add_(2**15)  # both halves, in one pass
        noise[start : start + step] = table.expand(len(bits), -1).gather(1, levels)
    return noise[:, :count].reshape(-1, *shape)


@functools.lru_cache(maxsize=16)
def _quantiles(device: torch.device) -> Tensor:
    """(65536,) float32: the normal distribution's quantiles in the middle of each of as many equal shares, made on the CPU."""
    share = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    return torch.special.ndtri(share).float().to(device)


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
