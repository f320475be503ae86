"""Parts of a view taken away."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import Share, ShareRange, between, both_ways
from medssl.augment.transform import Parameters, Transform


class Cutout(Transform):
    """A rectangle or box is blanked (DeVries and Taylor, 1708.04552)."""

    area: ShareRange = Field(default=[0.02, 0.1], description="Share of the view, uniform; sides in the ratio 1/2 to 2")
    value: Share = Field(default=0.0, description="What stands there afterwards")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`area` (n,), `ratio` (n, 3) of each side to the cube's, `corner` (n, 3), shares of the room there is."""
        u = torch.rand(n, 7, generator=generator)
        ratio = (both_ways(u[:, 1:4], 0.5) * torch.log(torch.tensor(2.0))).exp()
        return {"area": between(u[:, 0], *self.area), "ratio": ratio, "corner": u[:, 4:7]}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """In place."""
        dims = images.ndim - 2
        ratio = drawn["ratio"][:, :dims]
        sides = (drawn["area"] ** (1 / dims))[:, None] * ratio / ratio.prod(1, keepdim=True) ** (1 / dims)
        low = drawn["corner"][:, :dims] * (1 - sides)
        inside = torch.ones(1, device=images.device, dtype=torch.bool)
        for axis, side in enumerate(images.shape[2:]):
            at = (torch.arange(side, device=images.device) + 0.5) / side
            line = (at >= low[:, axis, None]) & (at < (low + sides)[:, axis, None])
            inside = inside & line.view(len(line), 1, *[side if other == axis else 1 for other in range(dims)])
        return images.masked_fill_(inside, self.value)
