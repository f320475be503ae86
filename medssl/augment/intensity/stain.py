"""H&E stains, varied in optical density, where they add up (Beer and Lambert)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import both_ways
from medssl.augment.transform import Parameters, Transform, constant

# Optical density of haematoxylin, eosin and DAB in red, green, blue: Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001), table 1.
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
UNMIX = tuple(map(tuple, torch.linalg.inv(torch.tensor(HED)).tolist()))
FLOOR = 1e-6  # of the light that comes through: skimage's, so that both agree


class StainJitter(Transform):
    """Each stain's density s becomes alpha s + beta: Tellez et al., IEEE TMI 37 (2018), and Med. Image Anal. 58 (2019), section 3.2.

    alpha is uniform in 1 +- scale, beta in +- shift; their "HED-light" has 0.05 for both, "HED-strong" 0.2. Densities are
    skimage's (rgb2hed): natural logarithms divided by that of FLOOR, so a shift of 0.05 is one of 0.69 in density.
    """

    colour: ClassVar[bool] = True

    scale: float = Field(default=0.05, ge=0, le=0.5, description="Largest relative change of a stain's density")
    shift: float = Field(default=0.003, ge=0, le=0.2, description="Largest absolute change, in skimage's unit of density")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`alpha` and `beta` (n, 3): of haematoxylin, eosin and the rest."""
        u = torch.rand(n, 6, generator=generator)
        return {"alpha": 1 + both_ways(u[:, :3], self.scale), "beta": both_ways(u[:, 3:], self.shift)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """(N, 3, ...); one matrix product a sample: densities to stains, changed, and back."""
        stains, unmix = constant(HED, images.device), constant(UNMIX, images.device)
        matrix = unmix @ (drawn["alpha"][:, :, None] * stains)  # (N, 3 rgb, 3 rgb)
        offset = (drawn["beta"] * -math.log(FLOOR)) @ stains
        density = images.flatten(2).clamp_min(FLOOR).log_().neg_()
        changed = torch.baddbmm(offset[:, :, None], matrix.transpose(1, 2), density)
        return changed.neg_().exp_().clamp_(0, 1).view_as(images)

    def describe(self, drawn: Parameters, i: int) -> str:
        """The factors of haematoxylin and eosin."""
        return "H {:.2f} E {:.2f}".format(*drawn["alpha"][i, :2].tolist())
