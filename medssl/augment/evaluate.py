"""The one view that features are computed on for evaluation: the whole image, nothing drawn and nothing cut off."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.augment.window import to_unit_range
from medssl.data.batches import PixelBatch


@torch.no_grad()
def eval_view(batch: PixelBatch, size: int) -> Tensor:
    """The store's whole square (N, 1, size, size), float32 in [0, 1]: windowed, then resized with antialiasing.

    Padding is 0. No centre crop: findings at the edge of the field, such as an effusion in the costophrenic angle, stay in.
    """
    images = to_unit_range(batch)
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True).clamp_(0, 1)
