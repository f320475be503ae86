"""The grid of tiles over a slide: where each lies, its pixels at the wanted scale, and how much of it is tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from medssl.data.formats import tissue
from medssl.data.formats.items import MAX_PIXELS, RefusedError
from medssl.data.formats.options import SlideOptions
from medssl.data.formats.slide_source import Slide

MAX_TILES = 2**20
"""Most tiles of a slide: 230,000 x 230,000 px in tiles of 224."""
_FINEST = 0.9  # least downsample: a slide scanned at 0.504 may give 0.5 micrometres a pixel, one at 0.5 not 0.25
_LEVEL_SLACK = 1.01  # levels are meant to be powers of two and are a little more
_REGION = 2**23  # pixels of a level that are read at a time for the mask: the file's tiles at its edges are decoded twice


@dataclass(frozen=True)
class Grid:
    """Tiles of `tile` x `tile` pixels that begin at the slide's corner; incomplete ones at its right and lower edge are left out."""

    rows: int
    columns: int
    tile: int
    step: tuple[float, float]  # pixels at full resolution from tile to tile, along x and y
    mpp: tuple[float, float] | None  # of the tiles

    @property
    def count(self) -> int:
        """Tiles of the grid, numbered row by row."""
        return self.rows * self.columns

    def box(self, row: int, column: int, rows: int = 1, columns: int = 1) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a block of tiles at full resolution."""
        x, y = self.step
        return column * x, row * y, (column + columns) * x, (row + rows) * y


def grid_of(slide: Slide, options: SlideOptions) -> Grid:
    """The grid that a data card asks for.

    Raises:
        RefusedError: "bad_header", the slide does not say its scale and one is asked for; "unsupported_type", it is too coarse
            for that; "no_tissue", it is smaller than a tile; "too_large".
    """
    downsample = (1.0, 1.0)
    mpp = slide.mpp
    if options.mpp is not None:
        if slide.mpp is None:
            raise RefusedError("bad_header", "the slide does not say how large its pixels are")
        downsample = (options.mpp / slide.mpp[0], options.mpp / slide.mpp[1])
        mpp = (options.mpp, options.mpp)
        if min(downsample) < _FINEST:
            raise RefusedError("unsupported_type", f"{max(slide.mpp):.3f} um a pixel, {options.mpp:g} asked for")
    step = (options.tile * downsample[0], options.tile * downsample[1])
    if step[0] * step[1] / _level_scale(slide, max(downsample)) ** 2 > MAX_PIXELS // 2:
        raise RefusedError("too_large", f"a tile covers {step[1]:.0f} rows, {step[0]:.0f} columns of the file")
    columns, rows = int(slide.width / step[0] + 1e-9), int(slide.height / step[1] + 1e-9)
    if rows * columns == 0:
        raise RefusedError("no_tissue", f"smaller than a tile: {slide.height} rows, {slide.width} columns")
    if rows * columns > MAX_TILES:
        raise RefusedError("too_large", f"{rows * columns} tiles")
    return Grid(rows, columns, options.tile, step, mpp)


def read_tile(slide: Slide, grid: Grid, row: int, column: int) -> np.ndarray:
    """RGB (tile, tile, 3) uint8."""
    return _resampled(slide, grid.box(row, column), (grid.tile, grid.tile), Pillow.Resampling.BILINEAR)


def tissue_shares(slide: Slide, grid: Grid) -> np.ndarray:
    """The share of tissue of each tile (rows, columns), from a pass over the coarsest level that is fine enough."""
    cell = tissue.CELL
    shape = (grid.rows * cell, grid.columns * cell)
    saturation, ink = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    scale = _level_scale(slide, min(grid.step) / cell)
    side = math.sqrt(_REGION) * scale
    columns, rows = (max(1, int(side / step)) for step in grid.step)
    for row in range(0, grid.rows, rows):
        for column in range(0, grid.columns, columns):
            high, wide = min(rows, grid.rows - row), min(columns, grid.columns - column)
            size = (wide * cell, high * cell)
            part = _resampled(slide, grid.box(row, column, high, wide), size, Pillow.Resampling.BOX)
            place = np.s_[row * cell : (row + high) * cell, column * cell : (column + wide) * cell]
            saturation[place], ink[place] = tissue.stain_of(part)
    return tissue.tile_shares(tissue.tissue_mask(saturation, ink))


def _best_level(slide: Slide, downsample: float) -> int:
    """The coarsest level that is as fine as wanted; of equals the first."""
    fine = [level for level, scale in enumerate(slide.downsamples) if scale <= _LEVEL_SLACK * downsample]
    return max(fine, key=slide.downsamples.__getitem__, default=0)


def _level_scale(slide: Slide, downsample: float) -> float:
    return slide.downsamples[_best_level(slide, downsample)]


def _resampled(
    slide: Slide, box: tuple[float, float, float, float], size: tuple[int, int], method: Pillow.Resampling
) -> np.ndarray:
    """RGB of a box at full resolution, read from one level and resized once, with antialiasing, to `size` (width, height)."""
    left, top, right, bottom = box
    level = _best_level(slide, min((right - left) / size[0], (bottom - top) / size[1]))
    scale = slide.downsamples[level]
    x, y = math.floor(left), math.floor(top)
    part = tuple(value / scale for value in (left - x, top - y, right - x, bottom - y))
    # What the box ends in may lie a rounding error beyond the slide's last pixel.
    width = min(math.ceil(part[2] - 1e-6), math.ceil((slide.width - x) / scale))
    height = min(math.ceil(part[3] - 1e-6), math.ceil((slide.height - y) / scale))
    pixels = slide.region(level, x, y, width, height)
    part = (part[0], part[1], min(part[2], width), min(part[3], height))
    if part == (0, 0, *size):
        return pixels
    return np.asarray(Pillow.fromarray(pixels).resize(size, method, box=part))
