"""What ultrasound does: speckle, wrong gain over depth, shadows. The transducer is above the image."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.intensity.separable import along_axes, gaussian_matrices
from medssl.augment.noise import gaussian_noise
from medssl.augment.ranges import ShareRange, between, both_ways, per_sample, range_of
from medssl.augment.transform import Parameters, Transform, draw_seeds

SPECKLE = 1.0  # px: width of a speckle grain's Gaussian; grains are as large as the pulse


class Speckle(Transform):
    """x * (1 + std * n), n with the grain of a pulse: Burckhardt, IEEE Trans. Sonics Ultrason. 25 (1978)."""

    std: range_of(0, 1) = Field(default=[0.0, 0.15], description="Standard deviation relative to the pixel, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`std` (n,) and `seed` (n,)."""
        return {"std": between(torch.rand(n, generator=generator), *self.std), "seed": draw_seeds(n, generator)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """The same grain in all channels; black stays black."""
        noise = gaussian_noise(drawn["seed"], (1, *images.shape[2:]))
        grain = gaussian_matrices(torch.full_like(drawn["std"], SPECKLE), images.shape[2:])
        noise = along_axes(noise, grain)
        for matrix in grain:
            noise /= matrix[:, matrix.shape[1] // 2].norm(dim=1).view(-1, *[1] * (images.ndim - 1))
        return images.mul_(noise.mul_(per_sample(drawn["std"], images)).add_(1)).clamp_(0, 1)


class DepthAttenuation(Transform):
    """x * exp(-k depth): time gain compensation set too low or too high."""

    strength: float = Field(default=0.5, ge=0, le=3, description="Largest k in both directions, depth 0 to 1, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`strength` (n,)."""
        return {"strength": both_ways(torch.rand(n, generator=generator), self.strength)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """About the middle depth, so that an image becomes neither darker nor brighter as a whole; clamped."""
        side = images.shape[-2]
        depth = (torch.arange(side, device=images.device, dtype=torch.float32) + 0.5) / side - 0.5
        return images.mul_(torch.exp(-per_sample(drawn["strength"], images) * depth[:, None])).clamp_(0, 1)


class SectorShadow(Transform):
    """A shadow behind a rib, stone or gas: a soft-edged sector, seen from the transducer, dark below some depth."""

    strength: ShareRange = Field(default=[0.3, 0.8], description="How dark, uniform")
    width: ShareRange = Field(default=[0.05, 0.2], description="Width at the middle depth, share of the view's, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`strength`, `width`, `at` (where it crosses the middle depth) and `depth` (where it begins), (n,) each."""
        u = torch.rand(n, 4, generator=generator)
        return {
            "strength": between(u[:, 0], *self.strength),
            "width": between(u[:, 1], *self.width),
            "at": between(u[:, 2], 0.1, 0.9),
            "depth": between(u[:, 3], 0.1, 0.6),
        }

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """The apex of the sector lies above the middle of the upper edge, as a curved array's does."""
        height, width = images.shape[-2:]
        y = ((torch.arange(height, device=images.device) + 0.5) / height)[:, None]
        x = ((torch.arange(width, device=images.device) + 0.5) / width)[None, :]
        apex = -0.5  # shares of the height above the image
        middle = (x - 0.5) / (y - apex) * (0.5 - apex) + 0.5  # where the ray through a pixel crosses the middle depth
        at, half, depth = (value.view(-1, 1, 1) for value in (drawn["at"], drawn["width"] / 2, drawn["depth"]))
        across = torch.sigmoid((half - (middle - at).abs()) / (0.15 * half + 1e-6))
        below = torch.sigmoid((y - depth) / 0.02)
        shadow = 1 - drawn["strength"].view(-1, 1, 1) * across * below
        return images.mul_(shadow.view(len(images), *[1] * (images.ndim - 3), height, width))
