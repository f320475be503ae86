"""One number for how strong views are: the policy's settings, all of them milder or stronger together."""

from __future__ import annotations

from typing import Any

from medssl.augment.geometry import MOST_ELASTIC, Geometry
from medssl.augment.transform import Transform
from medssl.augment.views import ViewSettings
from medssl.augment.window import WindowJitter

SMALLEST_CROP = 0.02  # share of the image


def strengthened(settings: ViewSettings, strength: float) -> ViewSettings:
    """`settings` made milder (strength < 1) or stronger (> 1).

    What the smallest crop leaves out, angles, shifts and the window's jitter are multiplied by `strength`, and so is the
    probability of each intensity transform, up to 1. Factors such as the crop's ratio are raised to its power. Flips and
    quarter turns are symmetries of the image, not strengths, and stay; so do the transforms' own ranges, which are physical.
    """
    if strength == 1:
        return settings
    changes: dict[str, Any] = {
        "strength": strength,
        "geometry": _geometry(settings.geometry, strength),
        "window": _window(settings.window, strength),
    }
    for name, transform in settings.transforms().items():
        changes[name] = transform.model_copy(update={"probability": _probability(transform, strength)})
    return settings.model_copy(update=changes)


def _geometry(geometry: Geometry, strength: float) -> Geometry:
    low, high = geometry.crop_scale
    changes: dict[str, Any] = {
        "crop_scale": [min(high, max(SMALLEST_CROP, 1 - (1 - low) * strength)), high],
        "crop_ratio": [ratio**strength for ratio in geometry.crop_ratio],
        "elastic": min(MOST_ELASTIC, geometry.elastic * strength),
        "translation": min(1.0, geometry.translation * strength),
    }
    if geometry.crop_mm is not None:
        least, most = geometry.crop_mm
        changes["crop_mm"] = [most * (least / most) ** strength, most]
    for name, largest in (("rotation", 180.0), ("tilt", 180.0), ("shear", 45.0)):
        changes[name] = min(largest, getattr(geometry, name) * strength)
    return geometry.model_copy(update=changes)


def _window(window: WindowJitter, strength: float) -> WindowJitter:
    return window.model_copy(
        update={
            "center_shift": min(1.0, window.center_shift * strength),
            "width_factor": [factor**strength for factor in window.width_factor],
        }
    )


def _probability(transform: Transform, strength: float) -> float:
    return min(1.0, transform.probability * strength)
