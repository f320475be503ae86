"""JPEG compression as slide scanners and cameras store images: ITU-T T.81, baseline, 4:4:4 or grey."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import between, per_sample, whole_range_of
from medssl.augment.transform import Parameters, Transform, constant

# T.81, annex K, tables K.1 and K.2.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8,) * 4),
)  # fmt: skip
# JFIF 1.02, section 7.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
FROM_YCC = tuple(map(tuple, torch.linalg.inv(torch.tensor(TO_YCC)).tolist()))


class Jpeg(Transform):
    """What compression at a drawn quality leaves. Rounding makes it a step function of the pixels: where two devices differ in
    the last bits of a coefficient that lies on a step, they differ by that step."""

    quality: whole_range_of(5, 100) = Field(default=[50, 95], description="The scale of the Independent JPEG Group, uniform")

    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """`quality` (n,), whole numbers."""
        low, high = self.quality
        return {"quality": between(torch.rand(n, generator=generator), low, high + 1).floor().clamp(max=high)}

    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """(N, 1 or 3, H, W): 8-bit values, blocks of 8 px (the edge is repeated up to a whole block), quantised, and back."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
        values = (padded * 255).round()
        colour = images.shape[1] == 3
        if colour:
            matrix = constant(TO_YCC, images.device)
            values = torch.einsum("ij,njhw->nihw", matrix, values)
            values[:, 1:] += 128
            values = values.round()
        tables = constant((LUMINANCE, CHROMINANCE, CHROMINANCE)[: images.shape[1]], images.device)
        restored = _through(values - 128, _scaled(tables, drawn["quality"])) + 128
        restored = restored.round().clamp(0, 255)
        if colour:
            restored[:, 1:] -= 128
            restored = torch.einsum("ij,njhw->nihw", constant(FROM_YCC, images.device), restored).round()
        return (restored / 255).clamp(0, 1)[..., :height, :width]


def _scaled(tables: Tensor, quality: Tensor) -> Tensor:
    """(N, C, 8, 8): the steps of each sample's quality."""
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((tables * per_sample(scale, tables.unsqueeze(0)) + 50) / 100).floor().clamp(1, 255)


def _through(values: Tensor, steps: Tensor) -> Tensor:
    """The discrete cosine transform of blocks of 8 x 8 (A.3.3), rounded to steps, and back."""
    n, channels, height, width = values.shape
    k = torch.arange(8, device=values.device, dtype=torch.float32)
    basis = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    blocks = values.view(n, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    frequencies = basis @ blocks @ basis.T
    steps = steps[:, :, None, None]
    restored = basis.T @ ((frequencies / steps).round() * steps) @ basis
    return restored.transpose(3, 4).reshape(n, channels, height, width)
