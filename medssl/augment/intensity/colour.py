"""Colour as in the papers' recipes for natural images, and what a camera's light does."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import Share, ShareRange, between, both_ways, per_sample
from medssl.augment.transform import Parameters, Transform

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale


class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue, in this order (torchvision's ColorJitter draws the order too).

    On grey images saturation and hue have nothing to change.
    """

    brightness: Share = Field(default=0.4, description="Factor is uniform in 1 +- this")
    contrast: Share = Field(default=0.4, description="Factor is uniform in 1 +- this")
    saturation: Share = Field(default=0.4, description="Factor is uniform in 1 +- this")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="Largest shift, share of the colour circle")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`brightness`, `contrast`, `saturation` (factors) and `hue`, (n,) each."""
        u = torch.rand(n, 4, generator=generator)
        names = ("brightness", "contrast", "saturation")
        drawn = {name: 1 + both_ways(u[:, i], getattr(self, name)) for i, name in enumerate(names)}
        return drawn | {"hue": both_ways(u[:, 3], self.hue)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Each step clamped to [0, 1], as in torchvision."""
        images = images.mul_(per_sample(drawn["brightness"], images)).clamp_(0, 1)
        mean = luma(images).flatten(1).mean(1)
        images = torch.lerp(per_sample(mean, images), images, per_sample(drawn["contrast"], images)).clamp_(0, 1)
        if images.shape[1] == 1:
            return images
        images = torch.lerp(luma(images), images, per_sample(drawn["saturation"], images)).clamp_(0, 1)
        return turn_hue(images, drawn["hue"]) if self.hue else images

    def describe(self, drawn: Parameters, i: int) -> str:
        """All four, by their first letters."""
        factors = [f"{name[0]}{float(drawn[name][i]):.2f}" for name in ("brightness", "contrast", "saturation")]
        return " ".join([*factors, f"h{float(drawn['hue'][i]):+.2f}"])


def luma(images: Tensor) -> Tensor:
    """(N, 1, ...): the brightness of (N, 1 or 3, ...)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def turn_hue(images: Tensor, shift: Tensor) -> Tensor:
    """(N, 3, ...) with the hue of HSV moved by shift (N,), shares of the circle; saturation and value stay."""
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    red, green, blue = images.unbind(1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sixth = torch.where(
        value == red, (green - blue) / safe, torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    )
    hue = sixth + 6 * shift.view(-1, *[1] * (value.ndim - 1))
    # Each channel of HSV is a trapezoid of the hue (Smith, SIGGRAPH 1978).
    offsets = [5.0, 3.0, 1.0]
    channels = []
    for offset in offsets:
        k = torch.remainder(hue + offset, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


class Grayscale(Transform):
    """All channels become the brightness."""

    colour: ClassVar[bool] = True
    probability: Share = Field(default=0.2, description="Probability that a view loses its colour")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """Nothing is drawn but whether."""
        return {}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """(N, 3, ...)."""
        return luma(images).expand_as(images).clone()


class Illumination(Transform):
    """A lamp off the axis: brightness falls from one side to the other, x * (1 + strength * (u . direction))."""

    strength: ShareRange = Field(default=[0.0, 0.3], description="Change at the edges, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`strength` and `angle` (n,), radians."""
        u = torch.rand(n, 2, generator=generator)
        return {"strength": between(u[:, 0], *self.strength), "angle": 2 * torch.pi * u[:, 1]}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Clamped."""
        y, x = _lines(images)
        angle = per_sample(drawn["angle"], images)
        slope = angle.cos() * x + angle.sin() * y
        return images.mul_(1 + per_sample(drawn["strength"], images) * slope).clamp_(0, 1)


class Vignetting(Transform):
    """Darker towards the corners: x * (1 - strength * r^2), r = 1 in the corner (the pupil cuts off oblique light)."""

    strength: ShareRange = Field(default=[0.0, 0.4], description="How much darker the corners are, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`strength` (n,)."""
        return {"strength": between(torch.rand(n, generator=generator), *self.strength)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """In place."""
        y, x = _lines(images)
        return images.mul_(1 - per_sample(drawn["strength"], images) * (x**2 + y**2) / 2)


def _lines(images: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in [-1, 1] along the last two axes, to broadcast."""
    height, width = images.shape[-2:]
    y = (torch.arange(height, device=images.device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=images.device) + 0.5) / width * 2 - 1
    return y[:, None], x[None, :]
