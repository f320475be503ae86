"""The types of settings that views are drawn from: strict numbers and ordered ranges."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor


def _ordered(value: list) -> list:
    if value[0] > value[1]:
        raise ValueError(f"is {value}, the first number must not be above the second")
    return value


def range_of(low: float, high: float, *, above: bool = False):
    """The type of a range [a, b] with low <= a <= b <= high; `above`: low < a."""
    number = Annotated[float, Field(gt=low, le=high) if above else Field(ge=low, le=high)]
    return Annotated[list[number], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


def whole_range_of(low: int, high: int):
    """The type of a range [a, b] of whole numbers with low <= a <= b <= high."""
    number = Annotated[int, Field(ge=low, le=high)]
    return Annotated[list[number], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


Share = Annotated[float, Field(ge=0, le=1)]
ShareRange = range_of(0, 1)
CropRange = range_of(0, 1, above=True)
Factors = range_of(0, 10, above=True)


def between(u: Tensor, low: float, high: float) -> Tensor:
    """Uniform in [low, high] for u uniform in [0, 1)."""
    return low + u * (high - low)


def log_between(u: Tensor, low: float, high: float) -> Tensor:
    """Log-uniform in [low, high]: a factor of 2 is as likely as one of 1/2."""
    return torch.exp(between(u, math.log(low), math.log(high)))


def both_ways(u: Tensor, most: float) -> Tensor:
    """Uniform in [-most, most]."""
    return (2 * u - 1) * most


def per_sample(values: Tensor, images: Tensor) -> Tensor:
    """(N,) or (N, C) shaped so that it broadcasts over images (N, C, ...)."""
    return values.view(*values.shape, *[1] * (images.ndim - values.ndim))
