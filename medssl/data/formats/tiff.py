"""What `raster` must know of a TIFF beyond what Pillow says (TIFF 6.0, sections 2 and 8; BigTIFF)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from medssl.data.formats.items import MAX_PIXELS, RefusedError

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 339, 322, 323
_EXTENTS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_SUBDIRECTORIES = (34665, 34853, 40965)  # Exif, GPS, interoperability: Pillow reads them too
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {3: "H", 4: "I", 5: "I", 8: "h", 9: "i", 10: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_BYTE_TYPES = (1, 2, 6, 7)
Fields = dict[int, tuple[float, ...] | bytes]
_LIBTIFF_ERROR = re.compile(r"(tempfile\.tif|TIFF\w*|\w*(?:Decode|Setup)\w*): (?!Warning)")

MAX_NUMBERS = 2**20
"""Most numbers in a directory, each of which becomes an object: tiles of 16 x 16 of the largest image are a quarter of that."""
MAX_DIRECTORY = 2**26
"""Most bytes of values in a directory, colour profiles and the like included."""


def bits_per_sample(image: TiffImageFile) -> int:
    """The depth of the deepest channel."""
    return max(_values(image, _BITS_PER_SAMPLE), default=1)


def is_signed(image: TiffImageFile) -> bool:
    """Whether the samples are two's complement integers."""
    return 2 in _values(image, _SAMPLE_FORMAT)


def shows_white_as_zero(image: TiffImageFile) -> bool:
    """Whether high values are dark after Pillow, which inverts PhotometricInterpretation 0 up to 8 bits but not above."""
    return image.mode.startswith("I") and 0 in _values(image, _PHOTOMETRIC)


def check_tiles(image: TiffImageFile) -> None:
    """Libtiff allocates a whole tile, however small the image that it covers.

    Raises:
        RefusedError: "too_large".
    """
    for width, length in zip(_values(image, _TILE_WIDTH), _values(image, _TILE_LENGTH), strict=False):
        if width * length > MAX_PIXELS:
            raise RefusedError("too_large", f"tiles of {length} rows, {width} columns")


def directory_end(head: bytes) -> int:
    """A length that the file has at least if its first directory is there, from its first 8 bytes (section 2)."""
    if head[2:4] not in (b"*\0", b"\0*"):  # BigTIFF's offset stands elsewhere
        return 0
    return int.from_bytes(head[4:8], "little" if head.startswith(b"II") else "big") + 2


def check_directory(file: BinaryIO) -> None:
    """Refuse a file of several pages, and a first directory whose values would fill the memory.

    Entries may all point to the same bytes, and pages may form a chain of any length, so neither is left to Pillow.
    What is damaged passes; Pillow says what the matter is.

    Raises:
        RefusedError: "multi_frame" or "too_large".
    """
    try:
        reader = _Directories(file)
        waiting, numbers, total = [reader.first], 0, 0
        for directory in range(1 + len(_SUBDIRECTORIES)):
            if not waiting:
                return
            for entry in reader.entries(waiting.pop()):
                total += entry.count * _SIZES.get(entry.kind, 0)
                numbers += entry.count if entry.kind not in _BYTE_TYPES and entry.kind in _SIZES else 0
                if numbers > MAX_NUMBERS or total > MAX_DIRECTORY:
                    raise RefusedError("too_large", f"a TIFF directory of {numbers} numbers, {total} bytes")
                waiting += [reader.place(entry)] if entry.tag in _SUBDIRECTORIES else []
            if directory == 0 and reader.next_page() != 0:
                raise RefusedError("multi_frame", "more than one page")
    except (struct.error, OSError, OverflowError):
        return


def fields(file: BinaryIO) -> Fields:
    """The first directory that `check_directory` let pass: numbers as tuples, rationals as floats, the rest as bytes.

    Of a file that is no TIFF, or is damaged, what can be read.
    """
    found: Fields = {}
    try:
        reader = _Directories(file)
        for entry in list(reader.entries(reader.first)):
            code = _CODES.get(entry.kind)
            size = entry.count * _SIZES.get(entry.kind, 0)
            if size > len(entry.value):
                file.seek(reader.place(entry))
                data = file.read(size)
            else:
                data = entry.value[:size]
            if code is None:
                found[entry.tag] = data
            elif len(data) == size:
                values = struct.unpack(f"{reader.order}{len(data) // struct.calcsize(code)}{code}", data)
                is_ratio = entry.kind in (5, 10)
                found[entry.tag] = (
                    tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=True)) if is_ratio else values
                )
    except (struct.error, OSError, OverflowError):
        pass
    return found


class _Entry(NamedTuple):
    tag: int
    kind: int
    count: int
    value: bytes  # the values if they fit, else their place


class _Directories:
    """The directories of a TIFF or BigTIFF. Methods raise struct.error where the file ends too soon or is none."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        head = file.read(16)
        if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise struct.error("not a TIFF")
        self._file, self.order, is_big = file, "<" if head.startswith(b"II") else ">", b"+" in head[2:4]
        self._pointer = struct.Struct(self.order + ("Q" if is_big else "I"))
        self._count = struct.Struct(self.order + ("Q" if is_big else "H"))
        self._entry = struct.Struct(self.order + ("HHQ8s" if is_big else "HHI4s"))
        (self.first,) = self._pointer.unpack_from(head, 8 if is_big else 4)

    def entries(self, offset: int) -> Iterator[_Entry]:
        """The entries of a directory; the file stands behind them at the end if nothing else is read meanwhile."""
        self._file.seek(offset)
        (entries,) = self._count.unpack(self._file.read(self._count.size))
        # A directory of BigTIFF may claim any number; TIFF's own limit does for both.
        for _ in range(min(entries, 0xFFFF)):
            yield _Entry(*self._entry.unpack(self._file.read(self._entry.size)))

    def next_page(self) -> int:
        """Behind the entries: where the next page's directory stands, 0 if there is none."""
        return self._pointer.unpack(self._file.read(self._pointer.size))[0]

    def place(self, entry: _Entry) -> int:
        """Where the values of an entry stand that do not fit into it."""
        return self._pointer.unpack(entry.value)[0]


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
