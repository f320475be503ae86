"""The tissue mask: stained against glass, slides of one kind only, pens, gaps and shares."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.data.formats import tissue

GLASS, EOSIN, PALE, HAEMATOXYLIN, DAB = (243, 243, 244), (220, 120, 170), (235, 210, 225), (90, 60, 140), (150, 100, 60)
GREEN_PEN, PALE_PEN, BLUE_PEN = (20, 140, 100), (170, 215, 200), (30, 40, 160)


def _slide(background, rows: int = 10, columns: int = 12, noise: int = 3) -> np.ndarray:
    cell = tissue.CELL
    generator = np.random.default_rng(0)
    pixels = np.empty((rows * cell, columns * cell, 3), np.int32)
    pixels[:] = background
    return pixels + generator.integers(-noise, noise + 1, pixels.shape)


def _shares(pixels: np.ndarray) -> np.ndarray:
    return tissue.tile_shares(tissue.tissue_mask(*tissue.stain_of(np.clip(pixels, 0, 255).astype(np.uint8))))


def _paint(pixels: np.ndarray, rows: slice, columns: slice, colour) -> None:
    cell = tissue.CELL
    place = np.s_[rows.start * cell : rows.stop * cell, columns.start * cell : columns.stop * cell]
    pixels[place] += np.array(colour) - np.array(GLASS)


@pytest.mark.parametrize("glass", [GLASS, (225, 220, 232), (235, 232, 220)])
def test_tissue_on_glass_of_any_tint(glass):
    pixels = _slide(glass)
    for place, colour in ((slice(1, 3), EOSIN), (slice(3, 4), HAEMATOXYLIN), (slice(4, 5), DAB)):
        _paint(pixels, place, slice(2, 6), colour)
    expected = np.zeros((10, 12), bool)
    expected[1:5, 2:6] = True
    assert np.array_equal(_shares(pixels) >= 0.5, expected)


def test_pale_tissue_is_not_lost_beside_dark_tissue():
    """Otsu's threshold alone lies between the two."""
    pixels = _slide(GLASS)
    _paint(pixels, slice(1, 4), slice(2, 6), HAEMATOXYLIN)
    _paint(pixels, slice(5, 8), slice(2, 6), PALE)
    saturation, _ = tissue.stain_of(np.clip(pixels, 0, 255).astype(np.uint8))
    assert tissue.otsu_threshold(np.bincount(saturation.ravel(), minlength=256)) > saturation[6 * tissue.CELL, 4 * tissue.CELL]
    assert (_shares(pixels)[5:8, 2:6] == 1).all()


def test_tissue_alone_and_glass_alone():
    assert (_shares(_slide(EOSIN, noise=20)) == 1).all()
    mixed = _slide(EOSIN, noise=20)
    mixed[:, :40] = np.array(HAEMATOXYLIN)
    assert (_shares(mixed) == 1).all()
    assert (_shares(_slide(GLASS)) < 0.1).all()
    assert (_shares(_slide((250, 250, 250), noise=0)) == 0).all()
    assert (_shares(_slide((0, 0, 0), noise=0)) == 0).all()


def test_pens_are_not_tissue():
    pixels = _slide(GLASS)
    _paint(pixels, slice(1, 4), slice(1, 4), EOSIN)
    _paint(pixels, slice(6, 8), slice(1, 11), GREEN_PEN)
    _paint(pixels, slice(8, 9), slice(1, 11), BLUE_PEN)
    pixels[6 * tissue.CELL - 3 : 6 * tissue.CELL, 8:60] = PALE_PEN  # the line's edge
    shares = _shares(pixels)
    assert (shares[1:4, 1:4] == 1).all()
    assert shares[5:].max() < 0.1


def test_a_pale_blue_counterstain_is_tissue():
    pixels = _slide(GLASS)
    _paint(pixels, slice(2, 6), slice(2, 6), (170, 185, 205))
    assert (_shares(pixels)[2:6, 2:6] == 1).all()


def test_gaps_within_tissue_are_part_of_it_and_lumina_are_not():
    cell = tissue.CELL
    pixels = _slide(GLASS)
    _paint(pixels, slice(1, 9), slice(1, 11), EOSIN)
    pixels[3 * cell : 3 * cell + 3, 2 * cell : 5 * cell] = GLASS
    pixels[5 * cell : 7 * cell, 5 * cell : 7 * cell] = GLASS
    shares = _shares(pixels)
    assert (shares[3, 2:5] == 1).all()
    assert (shares[5:7, 5:7] == 0).all()


def test_the_border_does_not_eat_tissue():
    pixels = _slide(GLASS)
    _paint(pixels, slice(0, 10), slice(0, 1), EOSIN)
    assert (_shares(pixels)[:, 0] == 1).all()


def test_otsu_divides_two_heaps():
    histogram = np.zeros(256, int)
    histogram[10:20], histogram[100:140] = 50, 20
    assert 19 <= tissue.otsu_threshold(histogram) < 100
