"""What a CT scanner does before its window: quantum noise, and the sharpness of the reconstruction kernel."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.intensity.separable import along_axes, gaussian_matrices
from medssl.augment.noise import gaussian_noise
from medssl.augment.ranges import between, both_ways, per_sample, range_of
from medssl.augment.transform import Parameters, Stage, Transform, draw_seeds

GRAIN = 0.6  # px: neighbouring pixels of a reconstruction share projections, so its noise is not white


class CtNoise(Transform):
    """Poisson-like noise in HU: its variance follows the attenuation of the tissue, and its grain is not white.

    std(x) = std x sqrt(max(1 + HU / 1000, 0.1)): 1 at water, less in lung, more in bone. Counts behind a ray follow a Poisson law
    whose relative spread grows with attenuation (Barrett, Gordon and Hershel, Comput. Biol. Med. 6, 1976); taking the pixel's own
    attenuation for that of its rays is the simplification.
    """

    stage: ClassVar[Stage] = "units"

    std: range_of(0, 500) = Field(default=[0.0, 20.0], description="Standard deviation in water, HU, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`std` (n,) HU and `seed` (n,)."""
        return {"std": between(torch.rand(n, generator=generator), *self.std), "seed": draw_seeds(n, generator)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Images before the window; `drawn` also holds `low` and `width` (N,), the HU at 0 and per 1."""
        width = drawn["width"].clamp_min(1e-6)
        noise = gaussian_noise(drawn["seed"], images.shape[1:])
        grain = gaussian_matrices(torch.full_like(width, GRAIN), images.shape[2:])
        noise = along_axes(noise, grain)
        # A filter of independent pixels leaves the sum of its squared weights of their variance; in the middle, away from edges.
        for matrix in grain:
            noise /= matrix[:, matrix.shape[1] // 2].norm(dim=1).view(-1, *[1] * (images.ndim - 1))
        attenuation = images * per_sample(width / 1000, images) + per_sample(1 + drawn["low"] / 1000, images)
        noise *= attenuation.clamp_min_(0.1).sqrt_()
        return images.addcmul_(noise, per_sample(drawn["std"] / width, images))


class CtKernel(Transform):
    """A sharper or smoother reconstruction kernel: x + amount (x - blurred x); bone kernels ring at edges as this does."""

    stage: ClassVar[Stage] = "units"

    amount: float = Field(
        default=0.5, ge=0, le=2, description="Largest amount in both directions, uniform; -1 is the blurred image"
    )
    sigma: range_of(0.3, 4) = Field(default=[0.6, 1.2], description="Standard deviation of the blur, px of the view, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`amount` and `sigma` (n,)."""
        u = torch.rand(n, 2, generator=generator)
        return {"amount": both_ways(u[:, 0], self.amount).clamp_min(-1), "sigma": between(u[:, 1], *self.sigma)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Not clamped."""
        blurred = along_axes(images, gaussian_matrices(drawn["sigma"], images.shape[2:]))
        return images + per_sample(drawn["amount"], images) * (images - blurred)
