"""Blur and lost resolution."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.intensity.separable import along_axes, gaussian_matrices, resolution_matrices
from medssl.augment.ranges import CropRange, between, range_of
from medssl.augment.transform import Parameters, Transform


class Blur(Transform):
    """Gaussian blur: of natural images in the papers' recipes, and a microscope or camera out of focus."""

    sigma: range_of(0, 8) = Field(default=[0.1, 2.0], description="Standard deviation, px of the view, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`sigma` (n,) px."""
        return {"sigma": between(torch.rand(n, generator=generator), *self.sigma)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """The edge pixel is repeated beyond the edge."""
        return along_axes(images, gaussian_matrices(drawn["sigma"], images.shape[2:])).clamp_(0, 1)


class LowResolution(Transform):
    """Down to fewer pixels and up again: an older detector, a thicker slice (nnU-Net, Isensee et al. 2021, supplement 4)."""

    factor: CropRange = Field(default=[0.5, 1.0], description="Share of the pixels along each axis that is left, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`factor` (n,)."""
        return {"factor": between(torch.rand(n, generator=generator), *self.factor)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Antialiased on the way down, linear on the way up."""
        return along_axes(images, resolution_matrices(drawn["factor"], images.shape[2:])).clamp_(0, 1)
