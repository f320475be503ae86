"""Holm's correction of p-values for several comparisons."""

from __future__ import annotations

import numpy as np


def holm(p: np.ndarray) -> np.ndarray:
    """(n,) p-values corrected by Holm (1979): naming those below alpha, the chance of one or more false names is alpha at most,
    however the comparisons depend on each other.

    The i-th smallest is multiplied by n - i + 1, never falls below the one before, and is at most 1. NaN stays NaN and
    is not counted as a comparison.
    """
    p = np.asarray(p, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    result[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return result
