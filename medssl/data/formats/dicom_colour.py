"""Colours of DICOM as RGB: YCbCr (PS3.3 C.7.6.3.1.2) and palettes (C.7.6.3.1.5, C.7.9)."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space

from medssl.data.formats.dicom_header import element
from medssl.data.formats.dicom_lut import bytes_of, descriptor_of, entries_of, words_of
from medssl.data.formats.items import RefusedError

KEYWORDS = tuple(
    f"{segmented}{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for segmented, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
)
"""What `palette_of` reads."""

_STRIP = 2**20  # pixels converted at a time: the conversion needs many times their size


def rgb_of(pixels: np.ndarray, photometric: str) -> np.ndarray:
    """RGB (H, W, 3) uint8 of pixels (H, W, 3) uint8 whose Photometric Interpretation is `photometric`."""
    if photometric not in ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422"):
        return pixels
    step = max(1, _STRIP // pixels.shape[1])
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), step):
        strip = pixels[start : start + step]
        if photometric.startswith("YBR_PARTIAL"):
            strip = _full_range(strip)
        out[start : start + step] = convert_color_space(strip, "YBR_FULL", "RGB")
    return out


def _full_range(strip: np.ndarray) -> np.ndarray:
    """Luminance from 16 to 235 and chrominance from 16 to 240 (ITU-R BT.601) spread over 0 to 255."""
    scaled = (strip.astype(np.float32) - (16, 128, 128)) * (255 / 219, 255 / 224, 255 / 224) + (0, 128, 128)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def palette_of(dataset: Dataset, little_endian: bool, signed: bool) -> tuple[np.ndarray, int]:
    """The palette (entries, 3) uint8 and the stored value that its first entry is for.

    Entries of 16 bits give their high byte, unless none uses it.

    Raises:
        RefusedError: "bad_header", a table is absent or damaged.
    """
    tables, first = [], 0
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        count, first, bits = descriptor_of(dataset, f"{name}Descriptor", signed, "bad_header")
        if element(dataset, f"Segmented{name}Data") is not None and element(dataset, f"{name}Data") is None:
            entries = _unsegmented(bytes_of(dataset, f"Segmented{name}Data", little_endian), bits, count, little_endian)
        else:
            entries = entries_of(dataset, f"{name}Data", count, little_endian, "bad_header")
        tables.append(entries)
    if len({len(table) for table in tables}) != 1:
        raise RefusedError("bad_header", "palettes of different lengths")
    palette = np.stack(tables, axis=1)
    return (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8), first


def through_palette(stored: np.ndarray, palette: np.ndarray, first: int) -> np.ndarray:
    """RGB (H, W, 3) uint8; values outside the palette get its first or last colour (PS3.3 C.7.6.3.1.5)."""
    index = np.clip(stored.astype(np.int32) - first, 0, len(palette) - 1)
    return palette[index]


def _unsegmented(data: bytes, bits: int, count: int, little_endian: bool) -> np.ndarray:
    """The table that segments stand for (PS3.3 C.7.9.2), (count,) uint16.

    Indirect segments are refused: the standard counts their offsets in bytes, programs count entries of 16 bits.
    """
    words = words_of(data, little_endian, packed=bits <= 8).tolist()
    out: list[int] = []
    place = 0
    try:
        while len(out) < count:
            kind, length = words[place], words[place + 1]
            if kind == 0:
                out += words[place + 2 : place + 2 + length]
                place += 2 + length
            elif kind == 1 and out:
                out += np.rint(np.linspace(out[-1], words[place + 2], length + 1)[1:]).astype(int).tolist()
                place += 3
            else:
                raise RefusedError("unsupported_type", f"a palette with a segment of type {kind}")
    except IndexError as error:
        raise RefusedError("bad_header", f"a segmented palette of {len(out)} entries where {count} are promised") from error
    return np.array(out[:count], np.uint16)
