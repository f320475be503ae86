"""What a slide is to the tiler: a size, a scale, levels of lower resolution, and regions of RGB; and slides made of frames."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from medssl.data.formats.items import MAX_PIXELS, Header, RefusedError

MAX_SIDE = 2**22
"""Largest width or height, px: a metre of glass at 0.25 micrometres a pixel."""
CACHE = 2**28
"""Bytes of decoded frames that are kept: tiles follow each other along a row, and the next row needs the same frames."""
_MPP = (0.01, 20.0)  # micrometres; files that were made for print or screens say 72 dots an inch, 353 micrometres
BACKGROUND = 255


@dataclass
class Slide:
    """An open slide. Sizes and places are (x, y), x along the columns, in pixels.

    Attributes:
        mpp: micrometres a pixel at full resolution, along x and y; None: the file does not say.
        downsamples: of each level against full resolution, rising from 1.
    """

    width: int
    height: int
    mpp: tuple[float, float] | None
    downsamples: tuple[float, ...] = (1.0,)
    header: Header = field(default_factory=Header)
    syntax: str = ""
    decoder: str = ""

    def __post_init__(self) -> None:
        if not (0 < self.width <= MAX_SIDE and 0 < self.height <= MAX_SIDE):
            raise RefusedError("too_large", f"{self.height} rows, {self.width} columns")

    def region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """RGB (height, width, 3) uint8 of a level, from the place (x, y) at full resolution on; white beyond the slide.

        Raises:
            RefusedError: "undecodable", "truncated", ...
        """
        raise NotImplementedError


def plausible_mpp(x: float | None, y: float | None) -> tuple[float, float] | None:
    """The scale, if both numbers can be a microscope's."""
    return (x, y) if x and y and all(math.isfinite(v) and _MPP[0] <= v <= _MPP[1] for v in (x, y)) else None


@dataclass
class PlainSlide(Slide):
    """A small image that stands in memory whole."""

    pixels: np.ndarray | None = None  # (H, W, 3) uint8

    def region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Slide.region`."""
        out = np.full((height, width, 3), BACKGROUND, np.uint8)
        part = self.pixels[y : y + height, x : x + width]
        out[: part.shape[0], : part.shape[1]] = part
        return out


@dataclass
class FrameSlide(Slide):
    """A slide of frames of one size, each of which lies somewhere and is decoded by itself.

    Attributes:
        places: (N, 2) int64, x and y of each frame's first pixel.
        frame: width and height of a frame.
        decode: gives frame k as (height, width, 3) uint8.
    """

    places: np.ndarray | None = None
    frame: tuple[int, int] = (0, 0)
    decode: Callable[[int], np.ndarray] | None = None
    _kept: OrderedDict[int, np.ndarray] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame[0] * self.frame[1] > MAX_PIXELS // 4:  # as RGB a fifth of the memory that reading may take
            raise RefusedError("too_large", f"frames of {self.frame[1]} rows, {self.frame[0]} columns")

    def region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Slide.region`. Where no frame lies, the slide is glass."""
        out = np.full((height, width, 3), BACKGROUND, np.uint8)
        frame = np.array(self.frame)
        first, last = np.array((x, y)), np.array((min(x + width, self.width), min(y + height, self.height)))
        for index in np.flatnonzero(((self.places < last) & (self.places + frame > first)).all(axis=1)):
            begin = np.maximum(self.places[index], first)
            end = np.minimum(self.places[index] + frame, last)
            (left, top), (right, bottom) = begin - self.places[index], end - self.places[index]
            (to_left, to_top), (to_right, to_bottom) = begin - first, end - first
            out[to_top:to_bottom, to_left:to_right] = self._frame(int(index))[top:bottom, left:right]
        return out

    def _frame(self, index: int) -> np.ndarray:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        pixels = self.decode(index)
        if pixels.shape != (self.frame[1], self.frame[0], 3) or pixels.dtype != np.uint8:
            raise RefusedError("undecodable", f"a frame of shape {pixels.shape}")
        self._kept[index] = pixels
        while len(self._kept) > max(1, CACHE // pixels.nbytes):
            self._kept.popitem(last=False)
        return pixels


@dataclass
class LevelSlide(Slide):
    """A slide whose levels are slides of their own, the finest first."""

    levels: tuple[Slide, ...] = ()

    def region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Slide.region`."""
        scale = self.downsamples[level]
        return self.levels[level].region(0, round(x / scale), round(y / scale), width, height)


def row_major_places(width: int, height: int, frame: tuple[int, int], *, down_first: bool = False) -> np.ndarray:
    """Places (N, 2) of frames that cover a slide row by row, from left to right, or column by column."""
    columns, rows = -(-width // frame[0]), -(-height // frame[1])
    x, y = np.meshgrid(np.arange(columns) * frame[0], np.arange(rows) * frame[1], indexing="xy")
    if down_first:
        x, y = x.T, y.T
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)
