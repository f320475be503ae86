"""The values of a stack of DICOM slices with one linear map to units, whatever map each slice has of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.data.formats.dicom_display import grey_image
from medssl.data.formats.dicom_header import text
from medssl.data.formats.items import RefusedError
from medssl.data.formats.quantise import Stats, quantisation, stats_of

if TYPE_CHECKING:
    from medssl.data.formats.dicom_frames import FrameElements
    from medssl.data.formats.dicom_layout import Layout
    from medssl.data.formats.items import Image

# What must agree for all slices to be treated as one image.
_SIGNATURE = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape",
)  # fmt: skip


@dataclass
class StoredSlice:
    """One slice as its file has it."""

    pixels: np.ndarray | None  # (H, W), padding included; None once it has been used
    view: FrameElements  # the elements that hold for it
    layout: Layout
    little_endian: bool

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for slices whose stored values mean the same."""
        kept = (self.layout.signed, self.layout.stored, self.layout.is_float, self.pixels.dtype)
        return (*kept, *(text(self.view, keyword) for keyword in _SIGNATURE))


@dataclass
class Values:
    """units = slope * value + intercept, for all slices."""

    dtype: np.dtype  # uint8, int16 or uint16
    slices: Callable[[], Iterator[np.ndarray]]  # their values (H, W), in order, once
    slope: float
    intercept: float
    full_range: tuple[float, float]
    window: tuple[float, float] | None
    window_function: str
    inverted: bool


def values_of(slices: list[StoredSlice], window: int | str) -> Values:
    """The values of a stack.

    Slices that agree in all that gives their values a meaning are treated as one image, padding and look-up tables included.
    Of others the units are kept: exactly where they are whole numbers, or steps of one slope, that span 16 bits, else by one
    linear map to 16 bits.

    Args:
        window: `ReadOptions.window`.

    Raises:
        RefusedError: as `dicom_display.grey_image`; "constant" only of the whole stack; "mixed_series", slices of both polarities.
    """
    if len({one.signature for one in slices}) > 1:
        return _different(slices, window)
    if slices[0].pixels.dtype.itemsize > 2:
        return _wide(slices, window)
    stored = _distinct(slices)
    image = _image(stored[None].copy(), slices[0], window)  # which fills padding in place
    table = np.zeros(2 ** (8 * stored.dtype.itemsize), image.pixels.dtype)
    table[_unsigned(stored)] = image.pixels[0]
    return _values(image, image.pixels.dtype, lambda: (table[_unsigned(pixels)] for pixels in _used(slices)), image.full_range)


def _wide(slices: list[StoredSlice], window: int | str) -> Values:
    """Slices of 32 bits and more: all of them stacked on top of each other are one image."""
    rows = slices[0].layout.rows
    image = _image(np.concatenate(list(_used(slices))), slices[0], window)
    quantise = quantisation(stats_of(image.pixels, Stats()), image.pixels.dtype)
    image.intercept += image.slope * quantise.intercept
    image.slope *= quantise.slope
    blocks = (image.pixels[start : start + rows] for start in range(0, len(image.pixels), rows))
    return _values(image, quantise.dtype, lambda: map(quantise, blocks), image.full_range)


def _different(slices: list[StoredSlice], window: int | str) -> Values:
    images = [_alone(one, window) for one in slices]
    if len({image.inverted for image in images}) > 1:
        raise RefusedError("mixed_series", "slices of both polarities")
    slopes, intercepts = (np.array([getattr(image, name) for image in images]) for name in ("slope", "intercept"))
    slope, intercept = _common_map(slopes, intercepts)
    factors, terms = slopes / slope, (intercepts - intercept) / slope
    exact = all((part == np.rint(part)).all() and np.abs(part).max() < 2**31 for part in (factors, terms))
    kind = np.int64 if exact else np.float64

    def values() -> Iterator[np.ndarray]:
        for image, factor, term in zip(images, factors.astype(kind), terms.astype(kind), strict=True):
            yield image.pixels * factor + term

    stats = Stats()
    for block in values():
        stats = stats_of(block, stats)
    quantise = quantisation(stats, np.dtype(kind))
    ends = sorted(slope * float(end) + intercept for end in (stats.low, stats.high))
    intercept, slope = intercept + slope * quantise.intercept, slope * quantise.slope
    first = images[0]
    first.slope, first.intercept = slope, intercept
    return _values(first, quantise.dtype, lambda: map(quantise, values()), (ends[0], ends[1]))


def _common_map(slopes: np.ndarray, intercepts: np.ndarray) -> tuple[float, float]:
    """A map of which those of the slices are whole multiples where one is easily found, else units themselves."""
    return (float(slopes[0]), float(intercepts[0])) if (slopes == slopes[0]).all() else (1.0, 0.0)


def _alone(one: StoredSlice, window: int | str) -> Image:
    """The image of a slice that does not agree with the others, which may well be of one value."""
    pixels, one.pixels = one.pixels, None
    try:
        return _image(pixels, one, window)
    except RefusedError as refusal:
        if refusal.reason != "constant":
            raise
    # The same header with a dark second value beside the slice's own, which is taken away again.
    lowest = 0 if one.layout.is_float else one.layout.value_range[0]
    other = np.full((1, pixels.shape[1]), lowest + (pixels.flat[0] == lowest), pixels.dtype)
    image = _image(np.concatenate([pixels, other]), one, window)
    image.pixels = image.pixels[:-1]
    return image


def _image(stored: np.ndarray, one: StoredSlice, window: int | str) -> Image:
    return grey_image(stored, one.view, one.layout, window, little_endian=one.little_endian)


def _values(
    image: Image, dtype: np.dtype, slices: Callable[[], Iterator[np.ndarray]], full_range: tuple[float, float] | None
) -> Values:
    # A volume has no place for a VOI LUT, and its window alone would show something else.
    window, function = (None, "linear") if image.voi_lut is not None else (image.window, image.window_function)
    return Values(dtype, slices, image.slope, image.intercept, full_range, window, function, image.inverted)


def _distinct(slices: list[StoredSlice]) -> np.ndarray:
    """The values that occur, each once: what a map of values does to them it does to the stack."""
    dtype = slices[0].pixels.dtype
    seen = np.zeros(2 ** (8 * dtype.itemsize), bool)
    for one in slices:
        seen[_unsigned(one.pixels)] = True
    return np.flatnonzero(seen).astype(f"u{dtype.itemsize}").view(dtype)


def _unsigned(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}")


def _used(slices: list[StoredSlice]) -> Iterator[np.ndarray]:
    """The pixels of each slice, which is let go afterwards: a volume is not held twice."""
    for one in slices:
        pixels, one.pixels = one.pixels, None
        yield pixels
