"""Small slides in plain image files, and TIFFs of JPEG tiles as Bio-Formats writes them (OME-TIFF)."""

from __future__ import annotations

import io
import os
import re
from typing import BinaryIO

import numpy as np

from medssl.data.formats import tiff
from medssl.data.formats.items import RefusedError
from medssl.data.formats.raster import read_colour
from medssl.data.formats.slide_source import FrameSlide, PlainSlide, Slide, plausible_mpp, row_major_places

_WIDTH, _LENGTH, _COMPRESSION, _DESCRIPTION, _SAMPLES, _PLANAR = 256, 257, 259, 270, 277, 284
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _JPEG_TABLES = 322, 323, 324, 325, 347
_JPEG = 7
_MICROMETRES = {"m": 1e6, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3}
_UNIT = {2: 25400.0, 3: 10000.0}  # inch, centimetre
_OME = re.compile(rb'PhysicalSize([XY])(Unit)?="([^"]{1,40})"')


def open_plain(file: BinaryIO) -> Slide:
    """A PNG, JPEG or TIFF of one page as a slide. TIFFs of whole JPEG files stay on the disk, all else is decoded at once.

    Raises:
        RefusedError: as `raster`.
    """
    tiff.check_directory(file)
    fields = tiff.fields(file)
    mpp = _ome_mpp(fields) or _resolution_mpp(fields)
    tiled = _open_tiles(file, fields, mpp)
    if tiled is not None:
        return tiled
    file.seek(0)
    image = read_colour(file)
    height, width = image.pixels.shape[:2]
    return PlainSlide(
        width=width, height=height, mpp=mpp, syntax=f"slide, {image.syntax}", decoder=image.decoder, pixels=image.pixels
    )


def _open_tiles(file: BinaryIO, fields: tiff.Fields, mpp: tuple[float, float] | None) -> FrameSlide | None:
    """A TIFF whose tiles are complete JPEG files, which know their colours better than its PhotometricInterpretation.

    Bio-Formats writes YCbCr tiles under RGB, and libtiff refuses them.
    """
    import PIL

    size = [_first(fields, tag) for tag in (_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH)]
    offsets, counts = fields.get(_TILE_OFFSETS, ()), fields.get(_TILE_COUNTS, ())
    if not all(isinstance(value, int) for value in (*size, *offsets, *counts)):
        return None
    if fields.get(_COMPRESSION) != (_JPEG,) or fields.get(_SAMPLES) != (3,) or min(size) < 1 or _JPEG_TABLES in fields:
        return None
    places = (
        row_major_places(size[0], size[1], (size[2], size[3])) if size[2] * size[3] * len(offsets) >= size[0] * size[1] else ()
    )
    if len(places) != len(offsets) or len(counts) != len(offsets) or fields.get(_PLANAR, (1,)) != (1,):
        return None
    end = file.seek(0, os.SEEK_END)
    if not _is_jfif(file, offsets[0]):
        return None

    def decode(index: int) -> np.ndarray:
        if offsets[index] + counts[index] > end:
            raise RefusedError("truncated", "the file ends before its tiles do")
        file.seek(offsets[index])
        # An edge tile that is one colour is a tile like any other.
        return read_colour(io.BytesIO(file.read(counts[index])), constant=True).pixels

    return FrameSlide(
        width=size[0],
        height=size[1],
        mpp=mpp,
        syntax="slide, TIFF of JPEG",
        decoder=f"pillow {PIL.__version__}",
        places=places,
        frame=(size[2], size[3]),
        decode=decode,
    )


def _first(fields: tiff.Fields, tag: int) -> float:
    """The tag's first number; 0 if there is none."""
    return next(iter(fields.get(tag, ())), 0)


def _is_jfif(file: BinaryIO, offset: int) -> bool:
    """Whether a JPEG file begins there that says that it is YCbCr (JFIF 1.02)."""
    file.seek(offset)
    head = file.read(11)
    return head[:4] == b"\xff\xd8\xff\xe0" and head[6:11] == b"JFIF\0"


def _ome_mpp(fields: tiff.Fields) -> tuple[float, float] | None:
    """PhysicalSizeX and PhysicalSizeY of OME-XML's first image; micrometres where no unit stands."""
    description = fields.get(_DESCRIPTION, b"")
    found: dict[str, str] = {}
    for axis, unit, value in _OME.findall(description if isinstance(description, bytes) else b""):
        found.setdefault((axis + unit).decode(), value.decode("utf-8", "replace"))
    scale = [_ome_size(found, axis) for axis in ("X", "Y")]
    return plausible_mpp(*scale)


def _ome_size(found: dict[str, str], axis: str) -> float | None:
    unit = _MICROMETRES.get(found.get(f"{axis}Unit", "µm").replace("μ", "µ"))  # Greek letter or sign
    try:
        return float(found[axis]) * unit if unit else None
    except (KeyError, ValueError):
        return None


def _resolution_mpp(fields: tiff.Fields) -> tuple[float, float] | None:
    """XResolution and YResolution (TIFF 6.0, section 8), if they are a microscope's."""
    unit = _UNIT.get(_first(fields, _RESOLUTION_UNIT) or 2)
    x, y = (_first(fields, tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    return plausible_mpp(unit / x, unit / y) if unit and x > 0 and y > 0 else None
