"""Voxels of any type as integers of 16 bits or fewer and one linear map: exactly where that is possible."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from medssl.data.formats.items import RefusedError

STRAY = 0.01
"""Largest share of voxels that may be infinite or not a number."""
_LEVELS = 2**16 - 1


@dataclass(frozen=True)
class Stats:
    """What is known of values that were seen so far."""

    low: float = math.inf  # of the finite ones; of integers exact
    high: float = -math.inf
    count: int = 0
    non_finite: int = 0
    whole: bool = True  # all finite ones are whole numbers


def stats_of(block: np.ndarray, before: Stats) -> Stats:
    """`before` and the values of `block` together."""
    whole, count = before.whole, before.count + block.size
    non_finite = before.non_finite
    if block.dtype.kind == "f":
        finite = np.isfinite(block)
        if not finite.all():
            block = block[finite]
            non_finite += int(finite.size - block.size)
        whole = whole and bool((block == np.rint(block)).all())
    if block.size == 0:
        return replace(before, count=count, non_finite=non_finite)
    low, high = block.min().item(), block.max().item()
    return Stats(min(low, before.low), max(high, before.high), count, non_finite, whole)


@dataclass(frozen=True)
class Quantisation:
    """values = slope * stored + intercept; stored has `dtype`."""

    dtype: np.dtype
    slope: float
    intercept: float
    low: float  # of the values: what is not finite becomes this
    kept: bool  # stored values are the values

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """The stored values of `block`."""
        if self.kept:
            if block.dtype.kind == "f":
                block = np.where(np.isfinite(block), block, block.dtype.type(self.low))
            return block.astype(self.dtype)
        if block.dtype.kind != "f" and self.slope == 1:
            return (block - block.dtype.type(self.low)).astype(self.dtype)
        values = np.where(np.isfinite(block), block, self.low).astype(np.float64)
        return np.clip(np.rint((values - self.low) / self.slope), 0, _LEVELS).astype(self.dtype)


def quantisation(stats: Stats, dtype: np.dtype) -> Quantisation:
    """How values of `dtype` with these `stats` are stored. The step is at most 1/65535 of their range.

    Raises:
        RefusedError: "non_finite", "constant" or "unsupported_type".
    """
    if stats.non_finite > STRAY * stats.count:
        raise RefusedError("non_finite", f"{stats.non_finite} of {stats.count} voxels")
    if stats.low == stats.high:
        raise RefusedError("constant")
    if dtype.kind != "f" and dtype.itemsize <= 2:
        kept = np.dtype(np.int16) if dtype == np.int8 else dtype.newbyteorder("=")
        return Quantisation(kept, 1.0, 0.0, stats.low, kept=True)
    if stats.whole and stats.high - stats.low <= _LEVELS:
        for kept in (np.dtype(np.uint16), np.dtype(np.int16)):
            if np.iinfo(kept).min <= stats.low and stats.high <= np.iinfo(kept).max:
                return Quantisation(kept, 1.0, 0.0, stats.low, kept=True)
        return Quantisation(np.dtype(np.uint16), 1.0, float(stats.low), stats.low, kept=False)
    step = (float(stats.high) - float(stats.low)) / _LEVELS
    if not math.isfinite(step):
        raise RefusedError("unsupported_type", "values beyond the range of numbers")
    if step == 0:
        raise RefusedError("constant", "a range below the least number")
    return Quantisation(np.dtype(np.uint16), step, float(stats.low), float(stats.low), kept=False)
