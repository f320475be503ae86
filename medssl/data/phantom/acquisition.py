"""From optical depth to stored pixels: exposure, scatter, noise and the two vendors' grey scales.

Modelled: primary beam, broad scatter, the detector's blur, quantum noise (normal, variance equal to the number of photons),
collimation, exposure, anatomical side markers, electrodes with leads, equalisation and edge enhancement.
Not modelled: grids, dead pixels, ghosting, the energy spectrum, any vendor's true processing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medssl.data.phantom.anatomy import Anatomy, Opacity
from medssl.data.phantom.drawing import frontal, lateral
from medssl.data.phantom.projection import Plane, Pose, step

MARKERS = {"R": (30, 17, 17, 30, 20, 18, 17), "L": (16, 16, 16, 16, 16, 16, 31)}  # 5 x 7 letters of lead, a row a number


@dataclass(frozen=True)
class Vendor:
    """A make of detector: frame in mm, pixels relative to the asked size, and how exposure becomes stored values."""

    key: str
    manufacturer: str
    frame: tuple[float, float]  # height, width
    size: float  # longer side relative to the asked size
    photometric: str
    bits: int
    gain: float  # stored values a unit of the natural logarithm
    offset: float
    equalise: float
    sharpen: float
    masks_border: bool  # stores 0 outside the collimated field


VENDORS = {
    "A": Vendor("A", "medssl phantom A", (430.0, 350.0), 1.0, "MONOCHROME2", 12, 780.0, 350.0, 0.2, 0.5, True),
    "B": Vendor("B", "medssl phantom B", (420.0, 400.0), 1.125, "MONOCHROME1", 14, 2300.0, 14000.0, 0.35, 0.25, False),
}


@dataclass(frozen=True)
class Exposure:
    """One acquisition: view (PA, AP or LL), pose, relative exposure, ratio of scatter to primary, collimated frame in mm,
    electrodes (n, 2) in the detector's mm, side marker, and how far the stored window strays from the anatomy's range."""

    view: str
    pose: Pose
    exposure: float
    scatter: float
    frame: tuple[float, float, float, float] | None  # mm cut off at top, bottom, left, right
    electrodes: np.ndarray
    marker: str
    window: tuple[float, float]  # shift and stretch, relative to the width


@dataclass(frozen=True)
class Picture:
    """Stored pixels (rows, columns) uint16, and the window (centre, width) in stored values that shows them."""

    pixels: np.ndarray
    window: tuple[float, float]
    air: np.ndarray  # aerated share of the lungs at each pixel, [0, 1]
    pixel: float  # mm


def plane_of(vendor: Vendor, size: int, pose: Pose) -> Plane:
    """The detector of `vendor` where the longer side of an asked `size` has `size * vendor.size` pixels."""
    pixel = max(vendor.frame) / round(size * vendor.size)
    return Plane(round(vendor.frame[0] / pixel), round(vendor.frame[1] / pixel), pixel, pose)


def draw_exposure(generator: np.random.Generator, view: str) -> Exposure:
    """Positioning, exposure and extras of one acquisition; all of it is independent of any opacity."""
    uniform, normal = generator.uniform, generator.normal
    bedside = view == "AP"
    collimated = generator.random() < 0.35
    leads = generator.random() < (0.5 if bedside else 0.08)
    return Exposure(
        view=view,
        pose=Pose(
            angle=normal(0, 0.045 if bedside else 0.022),
            scale=uniform(1.1, 1.24),
            shift=(normal(0, 7), normal(-6, 8)),
            yaw=normal(0, 0.07 if bedside else 0.035),
            breath=normal(-9, 6) if bedside else normal(0, 5),
            heart=uniform(1.06, 1.16) if bedside else uniform(0.97, 1.03),
        ),
        exposure=float(np.exp(normal(-0.25 if bedside else 0.0, 0.3))),
        scatter=uniform(0.03, 0.06) if bedside else uniform(0.015, 0.04),
        frame=tuple(uniform(4, 30, 4)) if collimated else None,
        electrodes=uniform((-110, -120), (110, 90), (int(generator.integers(2, 5)), 2)) if leads else np.zeros((0, 2)),
        marker=str(generator.choice(["R", "L"], p=[0.7, 0.3])) if generator.random() < 0.7 else "",
        window=(normal(0, 0.035), normal(1.0, 0.06)),
    )


def take(
    anatomy: Anatomy,
    opacities: tuple[Opacity, ...],
    exposure: Exposure,
    vendor: Vendor,
    size: int,
    generator: np.random.Generator,
) -> Picture:
    """Expose one image. `generator` is read for the quantum noise alone."""
    plane = plane_of(vendor, size, exposure.pose)
    depth, air = (lateral if exposure.view == "LL" else frontal)(anatomy, opacities, plane)
    inside = depth > 0.25
    across, down = _detector_mm(plane)
    depth = depth + _electrodes(exposure.electrodes, across, down)
    beam = _collimator(exposure.frame, across, down, vendor.frame)
    primary = np.exp(-depth) * np.maximum(beam, 2e-3) * np.exp(-_marker(exposure.marker, across, down, vendor.frame))
    scattered = primary + exposure.scatter * _broad_blur(primary, 28.0 / plane.pixel) * (0.1 + beam)
    blurred = ndimage.gaussian_filter(scattered, 0.55)
    # Photons a pixel fall with its area, so that a finer archive of the same patients is as noisy a square millimetre.
    photons = blurred * exposure.exposure * 1.3e4 * plane.pixel**2
    photons = photons + np.sqrt(photons) * generator.standard_normal(plane.shape)
    signal = np.log(np.maximum(photons, 1.0) / (1.3e4 * plane.pixel**2))
    signal = _processed(signal, vendor, plane.pixel)
    shade = -signal if vendor.photometric == "MONOCHROME2" else signal
    stored = np.clip(np.rint(vendor.offset + vendor.gain * shade), 0, 2**vendor.bits - 1).astype(np.uint16)
    if vendor.masks_border:
        stored[beam < 0.5] = 0
    low, high = (float(value) for value in np.percentile(stored[inside & (beam > 0.5)], (2, 98)))
    width = max(high - low, 16.0) * 1.12 * exposure.window[1]
    centre = (low + high) / 2 + exposure.window[0] * width
    return Picture(stored, (round(centre, 1), round(width, 1)), air * (beam > 0.5), plane.pixel)


def _detector_mm(plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel from the detector's middle in mm: to the right, downwards."""
    down, across = np.indices(plane.shape, dtype=np.float64)
    rows, columns = plane.shape
    return (across - (columns - 1) / 2) * plane.pixel, (down - (rows - 1) / 2) * plane.pixel


def _collimator(
    frame: tuple[float, float, float, float] | None, across: np.ndarray, down: np.ndarray, size: tuple[float, float]
) -> np.ndarray:
    """The share of the beam that passes the collimator, [0, 1]."""
    if frame is None:
        return np.ones_like(across)
    top, bottom, left, right = frame
    half_height, half_width = size[0] / 2, size[1] / 2
    vertical = step(down + half_height - top, 1.5) * step(half_height - bottom - down, 1.5)
    return vertical * step(across + half_width - left, 1.5) * step(half_width - right - across, 1.5)


def _electrodes(places: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Optical depth of electrodes and of the wires that leave them upwards."""
    depth = np.zeros_like(across)
    for x, y in places:
        depth = np.maximum(depth, 0.55 * step(6.5 - np.hypot(across - x, down - y), 0.8))
        wire = np.abs(across - x - 0.0016 * (down - y) ** 2)
        depth = np.maximum(depth, 0.3 * step(1.3 - wire, 0.8) * step(y - down, 1.0))
    return depth


def _marker(letter: str, across: np.ndarray, down: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Optical depth of the lead letter that names the side nearest to it; the image shows the patient's right at its left."""
    if not letter:
        return np.zeros_like(across)
    bits = np.array([[row >> (4 - bit) & 1 for bit in range(5)] for row in MARKERS[letter]], dtype=np.float64)
    cell, side = 3.0, -1.0 if letter == "R" else 1.0
    column = (across - side * (size[1] / 2 - 34)) / cell + 2.0
    row = (down + size[0] / 2 - 45) / cell + 3.0
    return 3.0 * ndimage.map_coordinates(bits, np.stack([row, column]), order=1, mode="constant")


def _broad_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Three box filters with about the variance of a Gaussian of `sigma` pixels: the cost does not grow with sigma."""
    side = 2 * round(sigma) + 1
    for _ in range(3):
        image = ndimage.uniform_filter(image, side, mode="nearest")
    return image


def _processed(signal: np.ndarray, vendor: Vendor, pixel: float) -> np.ndarray:
    """Equalise broad differences of exposure and enhance edges, as radiography systems do before they store an image."""
    broad = _broad_blur(np.clip(signal, -3.5, 0.0), 30.0 / pixel)  # the collimator's shadow is not equalised
    fine = ndimage.gaussian_filter(signal, 3.0 / pixel)
    return signal - vendor.equalise * (broad - broad.mean()) + vendor.sharpen * (signal - fine)
