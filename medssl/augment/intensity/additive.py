"""Gaussian noise: of an X-ray detector, or of electronics."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.noise import gaussian_noise
from medssl.augment.ranges import between, per_sample, range_of
from medssl.augment.transform import Parameters, Transform, draw_seeds

NoiseRange = range_of(0, 0.5)


class Noise(Transform):
    """x + std * n, clamped; n normal, every pixel and channel by itself."""

    std: NoiseRange = Field(default=[0.0, 0.02], description="Standard deviation, share of the full range, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`std` (n,) and `seed` (n,)."""
        return {"std": between(torch.rand(n, generator=generator), *self.std), "seed": draw_seeds(n, generator)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """In place."""
        noise = gaussian_noise(drawn["seed"], images.shape[1:])
        return images.addcmul_(noise, per_sample(drawn["std"], images)).clamp_(0, 1)
