"""From stored pixels to [0, 1]: rescale, window, inversion, as a DICOM viewer does it (PS3.3 C.11), and its jitter in views.

Window coordinates: 0 at the lower end of the image's window, 1 at the upper end, linear beyond both. Views are resampled in them,
since resampling is linear and clipping is not, and only then shown.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import Factors, Share, both_ways, log_between, per_sample
from medssl.augment.transform import Parameters
from medssl.data.batches import CT_WINDOWS, FUNCTIONS, PixelBatch
from medssl.strict import StrictModel


class WindowJitter(StrictModel):
    """How the window of a view differs from the image's own: exposure, and a reader's setting."""

    center_shift: Share = Field(default=0.0, description="Largest shift of the window's centre, share of its width, uniform")
    width_factor: Factors = Field(default=[1.0, 1.0], description="Factor of the window's width, log-uniform")
    anchor: Literal["center", "low"] = Field(
        default="center", description="What stays where it is when the width changes; low: black stays black, as under a gain"
    )
    ct: list[Literal["lung", "soft_tissue", "bone", "brain"]] | None = Field(
        default=None, min_length=1, description="CT: one of these windows is drawn for each view; null: the image's own"
    )

    def sample(self, n: int, generator: torch.Generator) -> Parameters:
        """Parameters of n views: CPU tensors (n,)."""
        u = torch.rand(n, 3, generator=generator)
        names = self.ct or []
        drawn = {
            "center_shift": both_ways(u[:, 0], self.center_shift),
            "width_factor": log_between(u[:, 1], *self.width_factor),
            "anchor": torch.full((n,), 0.5 if self.anchor == "center" else 0.0),
        }
        if names:
            windows = torch.tensor([CT_WINDOWS[name] for name in names])[(u[:, 2] * len(names)).long()]
            drawn |= {"center": windows[:, 0], "width": windows[:, 1]}  # HU
        return drawn


def window_ends(batch: PixelBatch) -> tuple[Tensor, Tensor]:
    """Where each image's window is centred and how wide it is, units: (N,) each; 0 wide where it is a step.

    linear (C.11.2.1.2.1) is centred half a unit lower and one unit narrower than it says.
    """
    linear = batch.function == FUNCTIONS["linear"]
    return torch.where(linear, batch.center - 0.5, batch.center), torch.where(linear, batch.width - 1, batch.width)


@torch.no_grad()
def in_window(batch: PixelBatch) -> Tensor:
    """The pixels in window coordinates, float32 (N, C, ...): units = slope x pixels + intercept, (units - centre) / width + 1/2."""
    center, width = window_ends(batch)
    # Subtracting the centre before dividing keeps float32 exact enough for 16-bit pixels and narrow windows.
    # uint16 tensors have no arithmetic in torch.
    image = batch.pixels.float()
    image = image * per_sample(batch.slope, image) if image is batch.pixels else image.mul_(per_sample(batch.slope, image))
    image += per_sample(batch.intercept - center, image)
    image *= per_sample(1 / width.clamp_min(1e-6), image)
    # A step has its edge at the centre itself (C.11.2.1.2.1, note).
    image += per_sample(torch.where(width <= 0, 0.0, 0.5), image)
    return image


@torch.no_grad()
def show(image: Tensor, batch: PixelBatch, jitter: Parameters | None = None) -> Tensor:
    """Images in window coordinates as they are shown: [0, 1], 0 black. Changes `image` in place.

    linear_exact (C.11.2.1.3.2) and linear are clamped to [0, 1]; sigmoid (C.11.2.1.3.1) is 1 / (1 + exp(-4 (x - c) / w));
    lut (C.11.2.1.1) is clamped, then taken through the table, interpolated between its entries.

    Args:
        batch: whose function, inversion and LUTs are looked at; of the same samples.
        jitter: of `WindowJitter.sample`, on the device of the image.
    """
    scale, shift = _jittered(batch, jitter)
    # An inverted image is shown by the mirrored window: all functions but the LUT are symmetric about the centre.
    sign = 1 - 2 * batch.invert.float()
    image *= per_sample(scale * sign, image)
    image += per_sample((shift - 0.5) * sign + 0.5, image)
    by_name = jitter is not None and "center" in jitter  # and linear, whatever the image's own is
    is_sigmoid = (batch.function == FUNCTIONS["sigmoid"]) & (not by_name)
    # Only the CPU can look without waiting; a GPU computes both.
    sigmoid = torch.sigmoid(4 * image - 2) if image.is_cuda or bool(is_sigmoid.any()) else None
    image.clamp_(0, 1)
    if sigmoid is not None:
        image = torch.where(per_sample(is_sigmoid, image), sigmoid, image)
    if batch.luts is not None and not by_name:
        is_lut = batch.function == FUNCTIONS["lut"]
        luts = torch.where(batch.invert[:, None], 1 - batch.luts.flip(1), batch.luts)
        image = torch.where(per_sample(is_lut, image), _looked_up(image, luts), image)
    return image


def _jittered(batch: PixelBatch, jitter: Parameters | None) -> tuple[Tensor, Tensor]:
    """(scale, shift), (N,) each: coordinates in the view's window = scale x coordinates in the image's own + shift."""
    scale, shift = torch.ones_like(batch.center), torch.zeros_like(batch.center)
    if jitter is None:
        return scale, shift
    if "center" in jitter:
        center, width = window_ends(batch)
        width = width.clamp_min(1e-6)
        scale = width / jitter["width"]
        shift = (center - width / 2 - jitter["center"]) / jitter["width"] + 0.5
    # Where black is: an inverted image shows its upper end black.
    stretch, anchor = jitter["width_factor"], torch.where(batch.invert, 1 - jitter["anchor"], jitter["anchor"])
    return scale / stretch, (shift - anchor - jitter["center_shift"]) / stretch + anchor


@torch.no_grad()
def to_unit_range(batch: PixelBatch) -> Tensor:
    """Images (N, C, ...), float32 in [0, 1], 0 black; pixels outside of the valid box are 0, also where an image is inverted."""
    image = show(in_window(batch), batch)
    image *= valid_mask(batch)
    return image


def _looked_up(image: Tensor, luts: Tensor) -> Tensor:
    """Each image in [0, 1] through its own table (N, L), linearly between entries."""
    at = image.flatten(1) * (luts.shape[1] - 1)
    low = at.floor().long().clamp_(0, luts.shape[1] - 2)
    below, above = luts.gather(1, low), luts.gather(1, low + 1)
    return torch.lerp(below, above, at - low).view_as(image)


def valid_mask(batch: PixelBatch) -> Tensor:
    """(N, 1, H, W) or (N, 1, D, H, W) float32: 1 inside of each image's valid box, 0 in the padding."""
    spatial = batch.pixels.shape[2:]
    mask = torch.ones(1, device=batch.box.device)
    for axis, side in enumerate(spatial):
        at = torch.arange(side, device=batch.box.device) + 0.5
        low, high = batch.box[:, axis, None], batch.box[:, len(spatial) + axis, None]
        line = ((at >= low) & (at < high)).float()
        mask = mask * line.view(len(line), 1, *[side if other == axis else 1 for other in range(len(spatial))])
    return mask
