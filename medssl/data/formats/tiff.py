"""What `raster` must know of a TIFF beyond what Pillow says (TIFF 6.0, section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_EXTENTS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_LIBTIFF_ERROR = re.compile(r"(tempfile\.tif|TIFF\w*|\w*(?:Decode|Setup)\w*): (?!Warning)")


def bits_per_sample(image: TiffImageFile) -> int:
    """The depth of the deepest channel."""
    return max(_values(image, _BITS_PER_SAMPLE), default=1)


def is_signed(image: TiffImageFile) -> bool:
    """Whether the samples are two's complement integers."""
    return 2 in _values(image, _SAMPLE_FORMAT)


def shows_white_as_zero(image: TiffImageFile) -> bool:
    """Whether high values are dark after Pillow, which inverts PhotometricInterpretation 0 up to 8 bits but not above."""
    return image.mode.startswith("I") and 0 in _values(image, _PHOTOMETRIC)


def directory_end(head: bytes) -> int:
    """A length that the file has at least if its first directory is there, from its first 8 bytes (section 2)."""
    if head[2:4] not in (b"*\0", b"\0*"):  # BigTIFF's offset stands elsewhere
        return 0
    return int.from_bytes(head[4:8], "little" if head.startswith(b"II") else "big") + 2


def pixels_end(image: TiffImageFile) -> int:
    """Where the last strip or tile ends, by its directory."""
    ends = [
        start + length
        for offsets, counts in _EXTENTS
        for start, length in zip(_values(image, offsets), _values(image, counts), strict=False)
    ]
    return max(ends, default=0)


def has_error(messages: Iterable[str]) -> bool:
    """Whether libtiff reported an error on stderr: it goes on with what it has, and Pillow does not always notice."""
    return any(_LIBTIFF_ERROR.match(line) for line in messages)


def _values(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, ())
    return value if isinstance(value, tuple) else (value,)
