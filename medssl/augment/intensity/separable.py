"""Linear filters along each axis, a matrix a sample: any width, any image size, exact at the edges, in 2D and 3D alike."""

from __future__ import annotations

import torch
from torch import Tensor

REACH = 48  # pixels beyond the edge that the repeated edge stands for: six times the largest sigma that settings allow


def along_axes(images: Tensor, matrices: list[Tensor]) -> Tensor:
    """Images (N, C, *spatial) with each spatial axis multiplied by its matrix (N, out, in)."""
    for axis, matrix in enumerate(matrices, start=2):
        last = images.movedim(axis, -1)
        shape = last.shape
        product = last.reshape(len(images), -1, shape[-1]) @ matrix.transpose(1, 2)
        images = product.view(*shape[:-1], matrix.shape[1]).movedim(-1, axis)
    return images


def gaussian_matrices(sigma: Tensor, sides: tuple[int, ...]) -> list[Tensor]:
    """For each side a matrix (N, side, side) that blurs with a Gaussian of `sigma` (N,) pixels; the edge pixel is repeated.

    sigma 0 gives the identity.
    """
    return [_gaussian(sigma, side) for side in sides]


def _gaussian(sigma: Tensor, side: int) -> Tensor:
    """Each row is the one above it moved by a pixel, so one line of weights makes them all; what falls over the edge goes to it."""
    distance = torch.arange(-side - REACH, side + REACH + 1, device=sigma.device, dtype=torch.float32)
    weight = torch.exp(-0.5 * (distance / sigma.clamp_min(1e-3)[:, None]) ** 2)
    weight = weight / weight[:, side:-side].sum(1, keepdim=True)
    middle = side + REACH  # of the line: distance 0
    matrix = weight[:, REACH + 1 : REACH + 2 * side].unfold(1, side, 1).flip(1).clone()  # (N, row, column): distance column - row
    # Pixel i has i before it: beyond the edge lie the distances from -REACH - i to -i - 1, and as many on the other side.
    tails = weight[:, :middle].flip(1).cumsum(1)  # sums of the distances -1 to -k
    before = tails[:, -1:] - torch.cat([torch.zeros_like(tails[:, :1]), tails[:, : side - 1]], dim=1)
    matrix[:, :, 0] += before
    matrix[:, :, -1] += before.flip(1)
    return matrix


def resolution_matrices(factor: Tensor, sides: tuple[int, ...]) -> list[Tensor]:
    """For each side a matrix (N, side, side): down to `factor` (N,) of its pixels, antialiased, and linearly up again."""
    return [_resolution(factor, side) for side in sides]


def _resolution(factor: Tensor, side: int) -> Tensor:
    """Both ways with the triangle filter, which is what antialiased bilinear resizing of Pillow and torch uses."""
    few = (factor * side).round().clamp(1, side)[:, None, None]
    large = torch.arange(side, device=factor.device, dtype=torch.float32) + 0.5
    small = torch.arange(side, device=factor.device, dtype=torch.float32) + 0.5  # those below `few` count
    used = small < few  # (N, 1, side)
    step = side / few
    down = (1 - ((large - small[:, None] * step) / step).abs()).clamp_min(0)  # (N, small, large)
    down = down / down.sum(2, keepdim=True).clamp_min(1e-12)
    up = (1 - (torch.minimum(torch.maximum(large[:, None] / step, few * 0 + 0.5), few - 0.5) - small).abs()).clamp_min(0) * used
    up = up / up.sum(2, keepdim=True).clamp_min(1e-12)
    return up @ (down * used.transpose(1, 2))
