"""The elements of a DICOM file that are asked for, without its pixels (PS3.10 section 7, PS3.5 section 7)."""

from __future__ import annotations

import errno
import functools
import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from medssl.data.formats.items import RefusedError

HEAD = 2**15
"""Bytes at the front of a file that are read at once: nearly every header ends within them."""
MAX_HEADER = 2**26
"""Most bytes of values that a header may have: ten thousand frames of an enhanced object have half of it."""
MAX_READS = 2**22
"""Most pieces that a header may be parsed from, which bounds the time that parsing takes."""
MAX_INFLATED = 2**28
"""Most bytes that a deflated data set may have once inflated, 256 MiB, since it is held in memory."""

PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_FIRST_PIXEL_TAG = 0x7FE00008
_VRS = frozenset(str(vr).encode() for vr in VR if len(vr) == 2)
_UNDEFINED = 0xFFFFFFFF
_STORAGE, _SYNTAX, _SOP_CLASS = 0x00020002, 0x00020010, 0x00080016
_OF_UIDS = frozenset("0123456789.")


@dataclass(frozen=True)
class PixelValue:
    """Where the value of an element with pixels lies."""

    keyword: str  # PixelData, FloatPixelData or DoubleFloatPixelData
    vr: str | None  # None: implicit
    offset: int  # of the value's first byte in the file
    length: int | None  # bytes that the header promises; None: undefined, that is encapsulated


@dataclass(frozen=True)
class Parsed:
    """What was read of a file."""

    file: BinaryIO  # the file, or the inflated data set
    size: int  # its bytes
    storage: uid.UID | None  # the SOP class, as the File Meta Information or else the data set says
    dataset: Dataset  # the elements that were asked for
    syntax: uid.UID | None  # None: the file does not say and its first element does not show it
    guessed: bool  # the file does not say which transfer syntax it has
    pixels: PixelValue | None


def parse(file: BinaryIO, keywords: Sequence[str]) -> Parsed:
    """The named elements of `file`; the others, the patient's name among them, are passed over unread.

    Files without the preamble of PS3.10 are taken for DICOM if they begin with an element of group 0002 or 0008 and name a
    SOP class of PS3.6. The cost is bounded whatever the file says: see `MAX_HEADER`, `MAX_READS` and `MAX_INFLATED`.

    Raises:
        RefusedError: "not_dicom", "no_pixels" (a directory), "too_large" or "undecodable" (deflated data that are damaged).
    """
    file.seek(0)
    head = file.read(HEAD)
    size = file.seek(0, os.SEEK_END)
    start = _start(head)
    with disable_value_validation():
        if size > len(head):
            try:
                found = _parse(io.BytesIO(head), start, file, size, keywords)
                if found.pixels is not None:
                    return found
            except Exception:  # what is cut at the head's end may fail in any way; the whole file decides
                pass
        elif size == len(head):
            file = io.BytesIO(head)
        return _parse_whole(file, start, size, keywords)


def _start(head: bytes) -> int:
    """Where the first element stands."""
    if head[128:132] == b"DICM":
        return 132
    if head.startswith(b"\x1f\x8b"):
        raise RefusedError("not_dicom", "gzip: unpack it")
    if head[:8] == b"\x02\x00\x00\x00UL\x04\x00" or _encoding(head[:8]) is not None:
        return 0
    raise RefusedError("not_dicom")


def _encoding(element: bytes) -> uid.UID | None:
    """The transfer syntax that a data set is in if its first element, of group 0008, begins with these 8 bytes."""
    if len(element) < 8:
        return None
    if element[:2] == b"\x08\x00":
        if element[4:6] in _VRS:
            return uid.ExplicitVRLittleEndian
        # Implicit: the four bytes are a length, and the first element of group 0008 is a short text or number.
        return uid.ImplicitVRLittleEndian if int.from_bytes(element[4:8], "little") < 1024 else None
    if element[:2] == b"\x00\x08" and element[4:6] in _VRS:
        return uid.ExplicitVRBigEndian
    return None


def _parse_whole(file: BinaryIO, start: int, size: int, keywords: Sequence[str]) -> Parsed:
    bounded = _Bounded(file, size)
    try:
        return _parse(bounded, start, file, size, keywords)
    except (MemoryError, RefusedError):
        raise
    except Exception as error:  # what pydicom's parser happens to raise, of bounds that are exceeded too
        bounded.check()
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's error; pydicom's own have no number, its seeks beyond the file have EINVAL
        raise RefusedError("not_dicom", f"its elements cannot be parsed: {type(error).__name__}") from error


def _parse(stream: io.BytesIO | _Bounded, start: int, file: BinaryIO, size: int, keywords: Sequence[str]) -> Parsed:
    stream.seek(start)
    meta = {int(found.tag): found.value for found in data_element_generator(stream, False, True, stop_when=_is_beyond_meta)}
    storage, syntax = _uid(meta.get(_STORAGE)), _uid(meta.get(_SYNTAX))
    _refuse_directory(storage)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data = _inflate(file, stream.tell())
        file, size = io.BytesIO(data), len(data)
        stream = _Bounded(file, size)
    guessed = syntax is None
    if guessed:
        place = stream.tell()
        syntax = _encoding(stream.read(8))
        stream.seek(place)
    stop = _StopAtPixels()
    dataset = read_dataset(
        stream,
        is_implicit_VR=syntax is None or syntax == uid.ImplicitVRLittleEndian,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
        stop_when=stop,
        specific_tags=_tags(tuple(keywords)),
    )
    raw = dataset.get_item(_SOP_CLASS)
    sop_class = _uid(raw.value if raw is not None else None)
    if start == 0 and uid.UID_dictionary.get(sop_class or "", ("", ""))[1] != "SOP Class":
        raise RefusedError("not_dicom")  # a file without preamble is DICOM only if it names a SOP class that there is
    _refuse_directory(sop_class)
    return Parsed(file, size, storage or sop_class, dataset, syntax, guessed, stop.value(stream.tell()))


@functools.lru_cache(maxsize=64)
def _tags(keywords: tuple[str, ...]) -> list[int]:
    return [int(tag) for keyword in ("SOPClassUID", *keywords) if (tag := tag_for_keyword(keyword)) is not None]


def _is_beyond_meta(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


class _StopAtPixels:
    """Tells pydicom to stop at the first element from the pixels on, and keeps what that element is."""

    def __init__(self) -> None:
        self._found: tuple[int, str | None, int] | None = None

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        # Shifting gives a plain number: pydicom's tags compare slowly, and this runs once an element.
        if tag >> 3 < _FIRST_PIXEL_TAG >> 3:
            return False
        self._found = (int(tag), vr, length)
        return True

    def value(self, place: int) -> PixelValue | None:
        """`place`: where the element that was stopped at begins."""
        if self._found is None or self._found[0] not in PIXEL_TAGS:
            return None
        tag, vr, length = self._found
        header = 12 if vr in EXPLICIT_VR_LENGTH_32 else 8
        return PixelValue(PIXEL_TAGS[tag], vr, place + header, None if length == _UNDEFINED else length)


def _uid(value: object) -> uid.UID | None:
    """A value of one UID as the file has it; None if it is none."""
    found = value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""
    return uid.UID(found) if found and not set(found) - _OF_UIDS else None


def _refuse_directory(sop_class: uid.UID | None) -> None:
    if sop_class == uid.MediaStorageDirectoryStorage:
        raise RefusedError("no_pixels", "a directory")


def _inflate(file: BinaryIO, start: int) -> bytes:
    """The data set behind the File Meta Information, inflated (PS3.5 A.5); of one that is cut, what there is."""
    file.seek(start)
    inflater, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    try:
        while (packed := inflater.unconsumed_tail or file.read(2**16)) and not inflater.eof:
            parts.append(inflater.decompress(packed, 2**20))
            total += len(parts[-1])
            if total > MAX_INFLATED:
                raise RefusedError("too_large", f"a data set of more than {MAX_INFLATED} bytes once inflated")
    except zlib.error as error:
        raise RefusedError("undecodable", "the deflated data set is damaged") from error
    return b"".join(parts)


class _Bounded:
    """A file of which only so much is read, in only so many pieces."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._bytes, self._reads = file, size, 0, 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        # A count beyond the file's end would be allocated before it is found missing.
        count = max(0, min(count, self._size - self._file.tell()))
        self._reads += 1
        self._bytes += count
        self.check()
        return self._file.read(count)

    def check(self) -> None:
        """Raises:
        RefusedError: "too_large".
        """
        if self._bytes > MAX_HEADER:
            raise RefusedError("too_large", f"a header of more than {MAX_HEADER} bytes")
        if self._reads > MAX_READS:
            raise RefusedError("too_large", f"a header in more than {MAX_READS} pieces")
