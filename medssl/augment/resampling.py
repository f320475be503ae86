"""One resampling: every pixel of a view is looked up where the composed map of crop, turn, flip and deformation puts it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Points at most this many stored pixels apart: bilinear interpolation reads a neighbourhood of one pixel on each side.
MAX_POINT_SPACING = 1.25
MOST_POINTS = 8  # along an axis; a shrink by more than ten is aliased a little rather than paid for


def points_per_pixel(reach: tuple[float, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """How many points along each axis a pixel of the view is the mean of, so that none of the image is skipped.

    Args:
        reach: the largest crop's sides, stored pixels.
        size: the view's sides, pixels, in the same order.
    """
    return tuple(
        min(MOST_POINTS, max(1, math.ceil(long / short / MAX_POINT_SPACING - 1e-6)))
        for long, short in zip(reach, size, strict=True)
    )


@torch.no_grad()
def resample(
    images: Tensor,
    box: Tensor,
    matrix: Tensor,
    center: Tensor,
    size: tuple[int, ...],
    *,
    points: tuple[int, ...] | None = None,
    elastic: Tensor | None = None,
    nearest: bool = False,
    full_box: bool = False,
) -> Tensor:
    """Views (N, C, *size) of images (N, C, *spatial), bilinear or trilinear.

    Antialiasing: each pixel of a view is the mean of points spread evenly over its footprint.

    Args:
        box: (N, 2 d) of the valid pixels, as in `crop_transform`; nothing outside of it is read.
        matrix, center: of `crop_transform`.
        points: of `points_per_pixel`; None: one point a pixel.
        elastic: (N, d, K + 3, ...) displacements of B-spline control points, shares of the view's side, x first.
        nearest: for label maps: the value of the pixel that each point lies in; one point a pixel.
        full_box: all boxes are known to be the whole image, which saves keeping points inside.
    """
    dims = images.ndim - 2
    points = (1,) * dims if points is None or nearest else points
    sides = tuple(side * k for side, k in zip(size, points, strict=True))
    grid = _grid(images, box, matrix, center, sides, elastic, full_box)
    mode = "nearest" if nearest else "bilinear"
    views = F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
    if max(points) == 1:
        return views
    return F.avg_pool2d(views, points) if dims == 2 else F.avg_pool3d(views, points)


def _grid(
    images: Tensor,
    box: Tensor,
    matrix: Tensor,
    center: Tensor,
    sides: tuple[int, ...],
    elastic: Tensor | None,
    full_box: bool,
) -> Tensor:
    """(N, *sides, d) in torch's coordinates; planes of x, y(, z) lie apart in memory, which is faster to write and to read."""
    n, dims = len(images), len(sides)
    # Scaled to [-1, 1] beforehand: a handful of numbers a sample instead of a pass over all points. Filled where they are needed: to
    # copy them to a GPU would wait for all that it still has to do.
    scale = torch.cat([torch.full((1,), 2 / side, device=images.device) for side in images.shape[2:][::-1]])
    matrix, center = matrix * scale[:, None], center * scale - 1
    lines = [(torch.arange(side, device=images.device, dtype=torch.float32) + 0.5) / side - 0.5 for side in sides[::-1]]
    moved = None if elastic is None else _displacement(elastic, sides)
    grid = torch.empty(n, dims, *sides, device=images.device)
    for axis in range(dims):
        # An affine map of a lattice is a sum of one line an axis: no matrix product over all points.
        total = center[:, axis].view(n, *[1] * dims)
        for other in reversed(range(dims)):
            shape = [n] + [1] * dims
            shape[dims - other] = sides[dims - 1 - other]
            step = (matrix[:, axis, other, None] * lines[other]).view(shape)
            total = torch.add(total, step, out=grid[:, axis]) if other == 0 else total + step
        if moved is not None:
            for other in range(dims):
                total.addcmul_(moved[:, other], matrix[:, axis, other].view(n, *[1] * dims))
        if not full_box:
            # Centres of the first and last valid pixel: beyond them interpolation would read padding. Where there is none the
            # image's own edge is left to grid_sample, so that a sample's view does not depend on the boxes beside it.
            low, high = box[:, dims - 1 - axis], box[:, 2 * dims - 1 - axis]
            first = torch.where(low > 0, (low + 0.5) * scale[axis] - 1, -torch.inf)
            last = torch.where(high < images.shape[-1 - axis], (high - 0.5) * scale[axis] - 1, torch.inf)
            torch.clamp(total, first.view(n, *[1] * dims), last.view(n, *[1] * dims), out=grid[:, axis])
    return grid.movedim(1, -1)


def _displacement(elastic: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(N, d, *sides): a cubic B-spline through the control points, as one small matrix product an axis."""
    field = elastic
    for axis, side in enumerate(sides):
        weights = _spline_weights(side, elastic.shape[2 + axis] - 3, elastic.device)
        field = torch.movedim(torch.movedim(field, 2 + axis, -1) @ weights.T, -1, 2 + axis)
    return field


def _spline_weights(side: int, spans: int, device: torch.device) -> Tensor:
    """(side, spans + 3): how much each control point counts at each of `side` pixels (Rueckert et al., IEEE TMI 18, 1999)."""
    at = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * spans
    first = at.floor().clamp(max=spans - 1)
    t = at - first
    basis = torch.stack(
        [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6], dim=1
    )
    weights = torch.zeros(side, spans + 3, device=device)
    return weights.scatter_(1, first.long()[:, None] + torch.arange(4, device=device), basis)
