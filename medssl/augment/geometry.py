"""The geometry of a view: crop, flip, shear, rotation and translation as one affine map, sampled once.

Coordinates are pixels of the store's square, pixel i spanning [i, i + 1). No padding is ever read: where a turned or
moved crop reaches over the edge of the valid box, the nearest valid pixel is repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Range = tuple[float, float]
# Points at most this many stored pixels apart: bilinear interpolation reads a neighbourhood of one pixel on each side.
MAX_POINT_SPACING = 1.25


@dataclass(frozen=True, kw_only=True)
class GeometryRanges:
    """What the geometry of a view is drawn from.

    Attributes:
        scale: share of the valid box's area that the crop covers, uniform.
        ratio: the crop's width / height, log-uniform.
        rotation: largest angle in degrees, uniform in both directions.
        translation: largest shift in shares of the crop's sides, uniform; the crop's place is uniform in any case.
        shear: largest horizontal shear angle in degrees.
        flip: probability of a horizontal flip.
    """

    scale: Range
    ratio: Range
    rotation: float = 0.0
    translation: float = 0.0
    shear: float = 0.0
    flip: float = 0.0


def sample_geometry(n: int, generator: torch.Generator, ranges: GeometryRanges) -> dict[str, Tensor]:
    """Parameters of n views on the CPU, each (n, ...) float32; every draw is taken whatever the ranges, in a fixed order."""
    u = torch.rand(n, 9, generator=generator)
    log_ratio = [math.log(r) for r in ranges.ratio]
    return {
        "scale": _between(u[:, 0], *ranges.scale),
        "ratio": _between(u[:, 1], *log_ratio).exp(),
        "place": u[:, 2:4],  # of the crop, as (y, x) shares of the room that it leaves in the box
        "rotation": _both_ways(u[:, 4], ranges.rotation),
        "shear": _both_ways(u[:, 5], ranges.shear),
        "translation": _both_ways(u[:, 6:8], ranges.translation),  # (y, x)
        "flip": (u[:, 8] < ranges.flip).float(),
    }


@torch.no_grad()
def apply_geometry(images: Tensor, box: Tensor, parameters: dict[str, Tensor], size: int) -> Tensor:
    """Views (N, 1, size, size) of images (N, 1, H, W).

    Antialiasing: each output pixel is the mean of k x k bilinear points spread evenly over its footprint, k the least
    number that keeps neighbouring points of the largest possible crop within MAX_POINT_SPACING stored pixels. k is 1
    for a store of up to 1.25 times the view's size; it is the same for the whole batch, so that nothing waits for the device.

    Args:
        box: (N, 4) y0, x0, y1, x1 of the valid pixels, half-open.
        parameters: of `sample_geometry`, on the device of the images.
    """
    height, width = images.shape[-2:]
    k = max(1, math.ceil(max(height, width) / size / MAX_POINT_SPACING - 1e-6))
    matrix, center = crop_transform(box, parameters)
    side = size * k
    line = (torch.arange(side, device=images.device, dtype=torch.float32) + 0.5) / side - 0.5
    v, u = line[:, None], line[None, :]
    grid = torch.empty(len(images), side, side, 2, device=images.device)
    # The affine map of a grid is a sum of a column and a row: no matrix product over all points is needed.
    for axis, (low, high, extent) in enumerate(((box[:, 1], box[:, 3], width), (box[:, 0], box[:, 2], height))):
        along_x = matrix[:, axis, 0, None, None] * u
        along_y = matrix[:, axis, 1, None, None] * v
        position = along_x + (along_y + center[:, axis, None, None])
        # Pixel centres of the first and last valid pixel: beyond them interpolation would read padding.
        position = torch.minimum(torch.maximum(position, (low + 0.5)[:, None, None]), (high - 0.5)[:, None, None])
        torch.mul(position, 2 / extent, out=grid[..., axis])
    grid -= 1
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(views, k) if k > 1 else views


def crop_transform(box: Tensor, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The affine map from a view's square to the store: position (x, y) = matrix @ (u, v) + center, u and v in [-0.5, 0.5].

    A crop of the drawn area and ratio that is wider or higher than the box is shrunk until it fits, its ratio kept:
    the ratio is a distortion of anatomy, and stays within its range.

    Returns:
        matrix (N, 2, 2) and center (N, 2), both in stored pixels, x first.
    """
    y0, x0, y1, x1 = box.unbind(1)
    box_height, box_width = y1 - y0, x1 - x0
    area = parameters["scale"] * box_height * box_width
    width, height = (area * parameters["ratio"]).sqrt(), (area / parameters["ratio"]).sqrt()
    fit = torch.minimum(box_width / width, box_height / height).clamp_max(1)
    width, height = width * fit, height * fit
    place, shift = parameters["place"], parameters["translation"]
    center_x = x0 + width / 2 + place[:, 1] * (box_width - width) + shift[:, 1] * width
    center_y = y0 + height / 2 + place[:, 0] * (box_height - height) + shift[:, 0] * height
    angle, slant = torch.deg2rad(parameters["rotation"]), torch.tan(torch.deg2rad(parameters["shear"]))
    cos, sin = angle.cos(), angle.sin()
    flipped = (1 - 2 * parameters["flip"]) * width
    # rotation @ shear @ diag(flipped, height): rotation acts last, in isotropic pixels, so it does not deform.
    matrix = torch.stack([flipped * cos, height * (cos * slant - sin), flipped * sin, height * (sin * slant + cos)], dim=1)
    return matrix.view(-1, 2, 2), torch.stack([center_x, center_y], dim=1)


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return low + u * (high - low)


def _both_ways(u: Tensor, most: float) -> Tensor:
    return (2 * u - 1) * most
