"""How values are mapped to grey: gamma, a warped histogram, solarisation."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import Factors, Share, both_ways, log_between, per_sample
from medssl.augment.transform import Parameters, Transform


class Gamma(Transform):
    """x ** exponent: display curves of detectors and vendors differ."""

    exponent: Factors = Field(default=[0.75, 1.35], description="Log-uniform; above 1 darkens")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`exponent` (n,)."""
        return {"exponent": log_between(torch.rand(n, generator=generator), *self.exponent)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """In place. As exp(exponent log x), a third faster than the power on CPUs; 0 stays 0."""
        return images.log_().mul_(per_sample(drawn["exponent"], images)).exp_()


KNOTS = 4  # inner knots of the warp: evenly spaced over [0, 1]


class HistogramWarp(Transform):
    """A rising curve through randomly moved knots, straight between them (as MONAI's RandHistogramShift): LUTs of vendors."""

    strength: Share = Field(default=0.3, description="Largest shift of a knot, share of half the distance to its neighbours")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`knots` (n, KNOTS + 2): what 0, the inner knots and 1 are mapped to; rising."""
        knots = torch.linspace(0, 1, KNOTS + 2).repeat(n, 1)
        # Half the distance at most: neighbours can meet but not cross.
        knots[:, 1:-1] += both_ways(torch.rand(n, KNOTS, generator=generator), self.strength / 2 / (KNOTS + 1))
        return {"knots": knots}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Linear between the knots."""
        return warp(images, drawn["knots"])


def warp(images: Tensor, knots: Tensor) -> Tensor:
    """Images (N, C, ...) in [0, 1] through each sample's curve, whose values at evenly spaced points of [0, 1] are knots (N, K)."""
    spans = knots.shape[1] - 1
    at = images.flatten(1) * spans
    low = at.floor().clamp_(0, spans - 1)
    below, above = knots.gather(1, low.long()), knots.gather(1, low.long() + 1)
    return torch.lerp(below, above, at - low).view_as(images)


class Solarize(Transform):
    """1 - x above the threshold: of BYOL's natural images (2006.07733, appendix B); no medical image looks like it."""

    threshold: Share = Field(default=0.5)

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """Nothing is drawn but whether."""
        return {}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Each channel by itself."""
        return torch.where(images >= self.threshold, 1 - images, images)
