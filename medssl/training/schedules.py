"""Learning-rate schedules, as functions of the step alone."""

from __future__ import annotations

import math


def cosine(step: int, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """The factor on the learning rate before step `step` of `total`: linear from 1/warmup to 1, then half a cosine to `final`.

    Without restarts, as in SGDR (1608.03983, eq. 5) with one period; SimSiam (2011.10566, section 4) uses it a step.
    """
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def factor(kind: str, step: int, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """The factor for a parameter group of schedule `kind`: cosine or constant (SimSiam's predictor, section 4.2: no decay)."""
    return cosine(step, total, warmup, final) if kind == "cosine" else 1.0
