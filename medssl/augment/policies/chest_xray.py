"""Views of chest radiographs. Each choice has its reason beside it; a radiologist should still be able to read every view."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from medssl.augment.geometry import GeometryRanges, apply_geometry, sample_geometry
from medssl.augment.intensity import IntensityRanges, apply_intensity, sample_intensity
from medssl.augment.window import to_unit_range
from medssl.data.batches import PixelBatch
from medssl.strict import StrictModel


def _ordered(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError(f"is {value}, the first number must not be above the second")
    return value


Share = Annotated[float, Field(ge=0, le=1)]
ShareRange = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
Factors = Annotated[list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
NoiseRange = Annotated[list[Annotated[float, Field(ge=0, le=0.5)]], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class ChestXraySettings(StrictModel):
    """Ranges of the chest X-ray views.

    Left out on purpose. Hue, saturation and greyscale: the image is grey. Vertical flip: nobody lies in the detector upside
    down. Blur: it hides what interstitial disease is read from, and studies that pretrain on chest X-rays leave it out
    (Azizi et al., ICCV 2021; MoCo-CXR, Sowrirajan et al., MIDL 2021).
    """

    policy: Literal["chest_xray"] = "chest_xray"
    # SimSiam's natural images use 0.2 to 1. A chest X-ray is framed, and a finding may fill little of it: below about a
    # third of the area one view can show a lung and the other none of it.
    crop_scale: ShareRange = Field(default=[0.3, 1.0], description="Share of the image's area")
    # The usual range of random resized crops (Szegedy et al. 2015, 1409.4842, section 6).
    crop_ratio: Factors = Field(default=[3 / 4, 4 / 3], description="Width / height of the crop")
    # Patients stand or lie askew by a few degrees; MoCo-CXR turns by up to 10, Azizi et al. by up to 45.
    rotation: float = Field(default=12.0, ge=0, le=180, description="Largest angle, degrees")
    translation: Share = Field(
        default=0.0, description="Largest shift over the crop's edge, share of its sides; crops move anyway"
    )
    shear: float = Field(default=0.0, ge=0, le=45, description="Largest angle, degrees")
    # The heart lies left: a flipped image is dextrocardia, and a side marker is then mirrored.
    horizontal_flip: Share = Field(default=0.0, description="Probability")
    # What exposure and a reader's window setting do; takes the place of brightness and contrast of natural images (0.4
    # there). Narrowed by more than a tenth, or shifted further, the mediastinum of bright images turns plain white.
    window_shift: Share = Field(default=0.08, description="Largest shift of the window's centre, share of its width")
    window_width: Factors = Field(default=[0.9, 1.4], description="Factor of the window's width")
    # Detectors and vendors differ in their display curves.
    gamma: Factors = Field(default=[0.75, 1.35], description="Exponent")
    # Quantum noise of a low dose. It is added at the view's resolution: at 64 px, 0.03 already drowned fine lung markings
    # on contact sheets of paediatric images.
    noise: NoiseRange = Field(default=[0.0, 0.015], description="Standard deviation, share of the full range")
    # Off: a blanked lung field can be the finding.
    cutout: Share = Field(default=0.0, description="Probability of blanking a rectangle")
    cutout_area: ShareRange = Field(default=[0.02, 0.1], description="Share of the view's area")


class ChestXray:
    """Random views of chest radiographs: window jitter, one resampling, gamma, noise."""

    def __init__(self, settings: ChestXraySettings) -> None:
        self.settings = s = settings
        self._geometry = GeometryRanges(
            scale=tuple(s.crop_scale),
            ratio=tuple(s.crop_ratio),
            rotation=s.rotation,
            translation=s.translation,
            shear=s.shear,
            flip=s.horizontal_flip,
        )
        self._intensity = IntensityRanges(
            center_shift=s.window_shift,
            width_factor=tuple(s.window_width),
            gamma=tuple(s.gamma),
            noise=tuple(s.noise),
            cutout=s.cutout,
            cutout_area=tuple(s.cutout_area),
        )

    def sample(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of one view of each of n samples: CPU tensors whose first dimension is n."""
        return sample_geometry(n, generator, self._geometry) | sample_intensity(n, generator, self._intensity)

    @torch.no_grad()
    def apply(self, batch: PixelBatch, parameters: dict[str, Tensor], size: int) -> Tensor:
        """Views (N, 1, size, size), float32 in [0, 1], on the device of the batch."""
        device = batch.pixels.device
        parameters = {name: value.to(device, non_blocking=True) for name, value in parameters.items()}
        images = to_unit_range(batch, center_shift=parameters["center_shift"], width_factor=parameters["width_factor"])
        views = apply_geometry(images, batch.box, parameters, size)
        return apply_intensity(views, parameters, noise=self.settings.noise[1] > 0, cutout=self.settings.cutout > 0)
