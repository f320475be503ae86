"""From stored pixels to [0, 1]: rescale, window, inversion, as a DICOM viewer does it (PS3.3 C.11)."""

from __future__ import annotations

import torch
from torch import Tensor

from medssl.data.batches import FUNCTIONS, PixelBatch


@torch.no_grad()
def to_unit_range(batch: PixelBatch, *, center_shift: Tensor | None = None, width_factor: Tensor | None = None) -> Tensor:
    """Images (N, C, H, W), float32 in [0, 1], 0 black; pixels outside of the valid box are 0, also where an image is inverted.

    units = slope x pixels + intercept (PS3.3 C.11.1), then the window of each image:
    linear (C.11.2.1.2.1): ((x - (c - 0.5)) / (w - 1) + 0.5), a step at c - 0.5 where w = 1;
    linear_exact (C.11.2.1.3.2): (x - c) / w + 0.5; both clamped to [0, 1];
    sigmoid (C.11.2.1.3.1): 1 / (1 + exp(-4 (x - c) / w));
    lut (C.11.2.1.1): as linear_exact over the range of the VOI LUT, then the table, interpolated between its entries.

    Args:
        center_shift: (N,) in shares of each window's width, None for none.
        width_factor: (N,) above 0, None for 1.
    """
    center, width = batch.center, batch.width
    if center_shift is not None:
        center = center + center_shift * width
    if width_factor is not None:
        width = width * width_factor
    linear = batch.function == FUNCTIONS["linear"]
    center = torch.where(linear, center - 0.5, center)
    width = torch.where(linear, width - 1, width)
    step = width <= 0
    # Subtracting the centre before dividing keeps float32 exact enough for 16-bit pixels and narrow windows.
    # uint16 tensors have no arithmetic in torch.
    image = batch.pixels.float() * _column(batch.slope)
    image += _column(batch.intercept - center)
    image /= _column(width.clamp_min(1e-6))
    is_sigmoid = batch.function == FUNCTIONS["sigmoid"]
    # Only the CPU can look without waiting; a GPU computes both.
    sigmoid = torch.sigmoid(4 * image) if image.is_cuda or bool(is_sigmoid.any()) else None
    image += _column(torch.where(step, 0.0, 0.5))
    image.clamp_(0, 1)
    if sigmoid is not None:
        image = torch.where(_column(is_sigmoid), sigmoid, image)
    if batch.luts is not None:
        is_lut = batch.function == FUNCTIONS["lut"]
        image = torch.where(_column(is_lut), _looked_up(image, batch.luts), image)
    image *= _column(1 - 2 * batch.invert.float())
    image += _column(batch.invert.float())
    image *= valid_mask(batch)
    return image


def _looked_up(image: Tensor, luts: Tensor) -> Tensor:
    """Each image in [0, 1] through its own table (N, L), linearly between entries."""
    at = image.flatten(1) * (luts.shape[1] - 1)
    low = at.floor().long().clamp_(0, luts.shape[1] - 2)
    below, above = luts.gather(1, low), luts.gather(1, low + 1)
    return torch.lerp(below, above, at - low).view_as(image)


def valid_mask(batch: PixelBatch) -> Tensor:
    """(N, 1, H, W) float32: 1 inside of each image's valid box, 0 in the padding."""
    height, width = batch.pixels.shape[-2:]
    y0, x0, y1, x1 = (edge[:, None] for edge in batch.box.unbind(1))
    y = torch.arange(height, device=batch.box.device) + 0.5
    x = torch.arange(width, device=batch.box.device) + 0.5
    rows = ((y >= y0) & (y < y1)).float()
    columns = ((x >= x0) & (x < x1)).float()
    return (rows[:, :, None] * columns[:, None, :]).unsqueeze(1)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
