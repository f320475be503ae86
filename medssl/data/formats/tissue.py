"""Which part of a stained slide is tissue: colour against a background without any.

The mask is computed on a thumbnail of `CELL` x `CELL` pixels a tile, so that a tile's share is the mean of its own cells. Stained
tissue is told from glass by saturation, the S of HSV; Otsu's threshold (IEEE Trans. SMC 9(1), 1979, 62-66) divides the two, and is then
lowered to just above the glass, because between dark and pale tissue it leaves the pale on the wrong side.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

CELL = 8
"""Cells along a tile's side: 14 micrometres each for tiles of 224 pixels at 0.5 micrometres a pixel."""
_DARKEST = 32  # below this value (V of HSV) saturation is noise: shadows, the scanner's black border
_INK = 128  # saturation from which a cell with least red is a pen's: nuclei of any stain, averaged over a cell, stay below
_STAINED = 31  # saturation (12 %) that no glass has: a slide whose lower class lies above it shows tissue alone
_MARGIN = (6, 18)  # least and most that tissue lies above the glass, in levels of 255
_SPREADS = 4.0  # robust standard deviations of the glass's saturation to stay clear of


def stain_of(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How strongly each pixel of (H, W, 3) uint8 RGB is stained, and how much it looks like ink.

    Returns:
        Saturation (H, W) uint8, 0 where the pixel is nearly black; and (H, W) uint8, 2: surely ink, 1: perhaps, 0: not.
    """
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    saturation = (highest - lowest) * 255 // np.maximum(highest, 1)
    saturation[highest < _DARKEST] = 0
    # Pens are green, blue and black-blue; haematoxylin and eosin have least green, DAB has least blue.
    ink = (red == lowest).astype(np.uint8) << (saturation >= _INK)
    return saturation.astype(np.uint8), ink


def tissue_mask(saturation: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """The cells (H, W) that are tissue, of what `stain_of` gives for a whole slide. Gaps up to half a tile wide are part of it."""
    mask = saturation > threshold_of(np.bincount(saturation.ravel(), minlength=256))
    # A pen's line is pale along its edges; further away the same pale blue may be a counterstain.
    mask &= ~ndimage.binary_dilation(ink == 2, iterations=CELL // 2, mask=ink > 0)
    gap = np.ones((CELL // 2 + 1, CELL // 2 + 1), bool)
    # Cells beyond the border are as those at it, or closing would eat tissue that goes on there.
    return ndimage.binary_closing(np.pad(mask, CELL, mode="edge"), gap)[CELL:-CELL, CELL:-CELL]


def tile_shares(mask: np.ndarray) -> np.ndarray:
    """The share of tissue (rows, columns) float64 of the tiles that a mask (rows x CELL, columns x CELL) covers."""
    rows, columns = mask.shape[0] // CELL, mask.shape[1] // CELL
    return mask.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3))


def threshold_of(histogram: np.ndarray) -> int:
    """The saturation above which a cell is tissue, of the histogram (256,) of all cells."""
    otsu = otsu_threshold(histogram)
    glass = histogram[: otsu + 1]
    centre = _median(glass)
    if centre >= _STAINED:
        return _STAINED
    deviations = np.bincount(np.abs(np.arange(len(glass)) - centre), weights=glass, minlength=1)
    spread = 1.4826 * _median(deviations)
    return min(centre + int(np.clip(_SPREADS * spread, *_MARGIN)), max(otsu, centre + _MARGIN[0]))


def otsu_threshold(histogram: np.ndarray) -> int:
    """The last level of the lower of two classes whose means differ most, weighted by their sizes."""
    levels = np.arange(len(histogram))
    below = np.cumsum(histogram)[:-1].astype(np.float64)
    above = histogram.sum() - below
    moment = np.cumsum(histogram * levels)
    means = moment[:-1] / np.maximum(below, 1), (moment[-1] - moment[:-1]) / np.maximum(above, 1)
    return int(np.argmax(below * above * (means[1] - means[0]) ** 2))


def _median(histogram: np.ndarray) -> int:
    total = np.cumsum(histogram)
    return int(np.searchsorted(total, total[-1] / 2))
