"""Contact sheets: small images side by side with a caption each, as HTML for a page or as one PNG for a tracker."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medssl.report import html
from medssl.report.html import Markup

LARGEST = 256  # longer side, px: larger images are shown smaller, so that a page of 48 stays a few megabytes
_GAP, _LINE, _PAPER, _INK = 8, 15, 255, 40


def png_of(image: np.ndarray, largest: int = LARGEST) -> bytes:
    """A PNG of an image (H, W), (1, H, W) or (3, H, W) in [0, 1], 0 black; 8 bit, its longer side at most `largest` pixels.

    Raises:
        ValueError: it has another shape.
    """
    return _encoded(_drawn(image, largest))


def sheet_html(images: Sequence[np.ndarray], captions: Sequence[Sequence[str]], label: str, largest: int = LARGEST) -> Markup:
    """The images as inline PNGs in a grid that follows the width of the window.

    Args:
        images: each as for `png_of`.
        captions: the lines below each image; the first is its alternative text.
        label: what the grid shows, for screen readers.
        largest: see `png_of`.
    """
    cells = []
    for image, lines in zip(images, captions, strict=True):
        data = base64.b64encode(png_of(image, largest)).decode()
        alternative = html.text(str(lines[0])).replace('"', "&quot;")
        below = "".join(f"<span>{html.text(line)}</span>" for line in lines)
        cells.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{alternative}"><figcaption>{below}</figcaption></figure>'
        )
    return Markup(f'<div class="sheet" role="group" aria-label="{html.text(label)}">{"".join(cells)}</div>')


def sheet_png(images: Sequence[np.ndarray], captions: Sequence[Sequence[str]], *, columns: int = 8, tile: int = 160) -> bytes:
    """The images as one PNG, row by row.

    Args:
        images: each as for `png_of`, not necessarily of one size.
        captions: the lines below each image; what does not fit its width is cut.
        columns: images a row.
        tile: longer side of each image, px.

    Raises:
        ValueError: no images, or an image of another shape.
    """
    if not images:
        raise ValueError("a contact sheet needs an image")
    lines = max(map(len, captions))
    columns, rows = min(columns, len(images)), math.ceil(len(images) / columns)
    step_x, step_y = tile + _GAP, tile + _GAP + lines * _LINE
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), (_PAPER,) * 3)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for place, (image, texts) in enumerate(zip(images, captions, strict=True)):
        x, y = _GAP + place % columns * step_x, _GAP + place // columns * step_y
        small = _drawn(image, tile)
        sheet.paste(small, (x + (tile - small.width) // 2, y + (tile - small.height) // 2))
        for i, text in enumerate(texts):
            draw.text((x, y + tile + 2 + i * _LINE), _fitting(str(text), tile, font), fill=(_INK,) * 3, font=font)
    return _encoded(sheet)


def _drawn(image: np.ndarray, largest: int) -> Image.Image:
    values = np.asarray(image, np.float32)
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0)
    elif values.ndim != 2:
        raise ValueError(f"an image of a contact sheet is (H, W), (1, H, W) or (3, H, W), not {values.shape}")
    drawn = Image.fromarray(np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8))
    drawn.thumbnail((largest, largest), Image.Resampling.BOX)
    return drawn


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=False, compress_level=9)
    return file.getvalue()


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
