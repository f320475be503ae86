"""How often something is done, as a study file says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EVERY = re.compile(r"(\d+)\s*(s|min|h|steps?|epochs?)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Interval:
    """After so many seconds, steps or epochs; exactly one of them is set."""

    seconds: float | None = None
    steps: int | None = None
    epochs: int | None = None


def interval_of(text: str) -> Interval:
    """`10min`, `90s`, `2h`, `500 steps`, `1 epoch`.

    Raises:
        ValueError: it is none of these, or zero.
    """
    found = _EVERY.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(f"is {text!r}; allowed: 90s, 10min, 2h, 500 steps, 1 epoch")
    number, unit = int(found[1]), found[2]
    if unit in _SECONDS:
        return Interval(seconds=number * _SECONDS[unit])
    return Interval(steps=number) if unit.startswith("step") else Interval(epochs=number)
