"""Slides of scanners' own formats by OpenSlide: .svs, .ndpi, .mrxs, .scn, .bif, .vms, .czi and tiled TIFF."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide

from medssl.data.formats.guard import captured_stderr
from medssl.data.formats.items import MAX_PIXELS, RefusedError
from medssl.data.formats.slide_source import Slide, plausible_mpp


def vendor_of(path: Path) -> str | None:
    """OpenSlide's name of the format ("aperio", "hamamatsu", ...); None: it knows none, or the file cannot be read."""
    try:
        with captured_stderr():
            return openslide.OpenSlide.detect_format(path)
    except (openslide.OpenSlideError, OSError, ValueError):
        return None


@dataclass
class OpenSlideSlide(Slide):
    """A slide that OpenSlide reads. After an error the handle gives nothing more (OpenSlide's rule), nor does this."""

    handle: openslide.OpenSlide | None = None

    def region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Slide.region`."""
        from PIL import Image as Pillow

        with _quiet_errors():
            part = self.handle.read_region((x, y), level, (width, height))
        if part.getchannel("A").getextrema() == (255, 255):
            return np.asarray(part.convert("RGB"))
        # Transparent where the scanner did not go.
        out = Pillow.new("RGB", part.size, (255, 255, 255))
        out.paste(part, mask=part.getchannel("A"))
        return np.asarray(out)


def open_scanned(path: Path, vendor: str) -> OpenSlideSlide:
    """Open a slide; only its directory is read.

    Raises:
        RefusedError: "not_slide", "undecodable" or "too_large".
    """
    try:
        with captured_stderr():
            handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise RefusedError("not_slide", vendor) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise RefusedError("undecodable", f"damaged slide of {vendor}") from error
    properties = handle.properties
    for level in range(handle.level_count):
        sides = [_number(properties.get(f"openslide.level[{level}].tile-{side}")) or 1.0 for side in ("width", "height")]
        if sides[0] * sides[1] > MAX_PIXELS // 4:  # a tile of the file is decoded whole
            raise RefusedError("too_large", f"the file's tiles are {sides[1]:.0f} rows, {sides[0]:.0f} columns")
    width, height = handle.dimensions
    return OpenSlideSlide(
        width=width,
        height=height,
        mpp=plausible_mpp(_number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y"))),
        downsamples=tuple(handle.level_downsamples),
        syntax=f"slide, {vendor}",
        decoder=f"openslide {openslide.__library_version__}",
        handle=handle,
    )


@contextlib.contextmanager
def _quiet_errors() -> Iterator[None]:
    """OpenSlide's errors, and libtiff's lines on stderr, quote the path."""
    try:
        with captured_stderr():
            yield
    except openslide.OpenSlideError as error:
        raise RefusedError("undecodable", "damaged pixels") from error


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
