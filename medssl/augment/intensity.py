"""Intensity of a view in [0, 1]: gamma, noise and, if asked for, a rectangle blanked out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.augment.noise import gaussian_noise

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class IntensityRanges:
    """What the intensity of a view is drawn from.

    Attributes:
        center_shift: largest shift of the window's centre, in shares of its width, uniform in both directions.
        width_factor: factor of the window's width, log-uniform.
        gamma: exponent, log-uniform.
        noise: standard deviation of the noise, in units of the full range, uniform.
        cutout: probability that a rectangle is blanked out.
        cutout_area: its area as a share of the view, uniform; its sides are in the ratio 1/2 to 2.
    """

    center_shift: float = 0.0
    width_factor: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    noise: Range = (0.0, 0.0)
    cutout: float = 0.0
    cutout_area: Range = (0.02, 0.1)


def sample_intensity(n: int, generator: torch.Generator, ranges: IntensityRanges) -> dict[str, Tensor]:
    """Parameters of n views on the CPU, each (n, ...); every draw is taken whatever the ranges, in a fixed order."""
    u = torch.rand(n, 9, generator=generator)
    area = _between(u[:, 5], *ranges.cutout_area)
    ratio = (_between(u[:, 6], -1, 1) * math.log(2)).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1)
    corner = u[:, 7:9] * (1 - sides)
    blanked = (u[:, 4] < ranges.cutout).float()
    return {
        "center_shift": (2 * u[:, 0] - 1) * ranges.center_shift,
        "width_factor": _log_between(u[:, 1], *ranges.width_factor),
        "gamma": _log_between(u[:, 2], *ranges.gamma),
        "noise": _between(u[:, 3], *ranges.noise),
        "noise_seed": torch.randint(0, 2**63 - 1, (n,), generator=generator),
        # y0, x0, y1, x1 in shares of the view; empty where nothing is blanked.
        "cutout": torch.cat([corner, corner + sides], dim=1) * blanked[:, None],
    }


@torch.no_grad()
def apply_intensity(views: Tensor, parameters: dict[str, Tensor], *, noise: bool = True, cutout: bool = False) -> Tensor:
    """Gamma, noise and cutout on views (N, 1, h, w) in [0, 1]; the result stays in [0, 1]. Changes `views` in place.

    Args:
        parameters: of `sample_intensity`, on the device of the views. (The window's jitter acts before: `to_unit_range`.)
        noise, cutout: whether these can have been drawn; False saves their passes over the pixels.
    """
    height, width = views.shape[-2:]
    views.pow_(parameters["gamma"].view(-1, 1, 1, 1))
    if noise:
        views.addcmul_(gaussian_noise(parameters["noise_seed"], height, width), parameters["noise"].view(-1, 1, 1, 1))
        views.clamp_(0, 1)
    if cutout:
        y0, x0, y1, x1 = (edge[:, None] for edge in parameters["cutout"].unbind(1))
        y = (torch.arange(height, device=views.device) + 0.5) / height
        x = (torch.arange(width, device=views.device) + 0.5) / width
        inside = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]
        views.masked_fill_(inside.unsqueeze(1), 0)
    return views


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + u * (high - low)


def _log_between(u: Tensor, low: float, high: float) -> Tensor:
    return _between(u, math.log(low), math.log(high)).exp()
