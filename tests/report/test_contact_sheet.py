from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from medssl.report.contact_sheet import LARGEST, png_of, sheet_html, sheet_png


def _decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_png_holds_the_image():
    grey = np.array([[0, 0.5], [1, 0.2]], np.float32)
    assert _decoded(png_of(grey)).tolist() == [[0, 128], [255, 51]]
    assert _decoded(png_of(grey[None])).tolist() == [[0, 128], [255, 51]]
    colour = np.zeros((3, 2, 2), np.float32)
    colour[1] = 1
    assert _decoded(png_of(colour))[0, 0].tolist() == [0, 255, 0]


def test_values_outside_of_the_range_are_clamped_and_what_is_no_number_is_black():
    assert _decoded(png_of(np.array([[-1, 2], [np.nan, np.inf]], np.float32))).tolist() == [[0, 255], [0, 255]]


def test_a_large_image_is_shown_smaller_with_its_aspect():
    assert _decoded(png_of(np.ones((2 * LARGEST, LARGEST), np.float32))).shape == (LARGEST, LARGEST // 2)


@pytest.mark.parametrize("shape", [(2, 4, 4), (4,), (4, 4, 3)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="an image of a contact sheet is"):
        png_of(np.zeros(shape, np.float32))


def test_the_grid_holds_every_image_and_escapes_its_captions():
    images = [np.full((4, 4), value, np.float32) for value in (0, 1)]
    grid = sheet_html(images, [['<b>"CT"', "key1"], ["MR", "key2"]], "some images")
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', grid)
    assert [_decoded(base64.b64decode(one)).max() for one in found] == [0, 255]
    assert 'alt="&lt;b&gt;&quot;CT&quot;"' in grid
    assert "<b>" not in grid
    with pytest.raises(ValueError, match="argument"):
        sheet_html(images, [["CT"]], "one caption is missing")


def test_the_sheet_as_one_png_puts_each_image_in_its_place():
    images = [np.full((8, 8), value, np.float32) for value in (0.0, 0.4, 0.8)]
    sheet = _decoded(sheet_png(images, [["a"], ["b"], ["a caption that does not fit"]], columns=2, tile=8))
    assert sheet.shape == (2 * (8 + 8 + 15) + 8, 2 * 16 + 8, 3)
    assert [sheet[12, 12, 0], sheet[12, 28, 0], sheet[8 + 31 + 4, 12, 0]] == [0, 102, 204]
    assert (sheet[:, -8:] == 255).all()


def test_a_sheet_without_images_is_refused():
    with pytest.raises(ValueError, match="needs an image"):
        sheet_png([], [])
