"""Compressed frames out of encapsulated Pixel Data (PS3.5 A.4), one at a time, from the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO

from medssl.data.formats.items import RefusedError

MAX_FRAGMENTS = 2**20
_ITEM, _UNDEFINED = b"\xfe\xff\x00\xe0", 0xFFFFFFFF
# How a stream begins: JPEG and JPEG-LS (SOI), JPEG 2000 (SOC, SIZ), and JP2 around one.
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")


class Encapsulated:
    """The frames of one element.

    They are found by the Extended Offset Table (PS3.3 C.7.6.3.1.8) or the Basic Offset Table where one of them has an entry for
    each frame, and the entry leads to an item; else by the fragments themselves.
    """

    def __init__(
        self, file: BinaryIO, start: int, end: int, frames: int, *, is_rle: bool, extended: tuple[bytes, bytes] | None = None
    ) -> None:
        """`start`: of the element's value in `file`; `end`: one after the last byte of it that there is.

        Raises:
            RefusedError: "truncated", there is no Basic Offset Table item.
        """
        self._file, self._end, self._frames, self._is_rle = file, end, frames, is_rle
        length = self._item(start)
        if length is None or length == _UNDEFINED or start + 8 + length > end:
            raise RefusedError("truncated", "damaged encapsulation")
        self._base = start + 8 + length
        self._offsets: tuple[int, ...] = ()
        if extended is not None and len(extended[0]) == 8 * frames:
            self._offsets = struct.unpack(f"<{frames}Q", extended[0])
        elif length == 4 * frames:
            file.seek(start + 8)
            self._offsets = struct.unpack(f"<{frames}I", file.read(length))

    @cached_property
    def count(self) -> int:
        """Frames that there are, complete or not."""
        if self._offsets:
            return sum(self._base + offset + 8 <= self._end for offset in self._offsets)
        return min(len(self._starts), self._frames)

    def frame(self, index: int, most: int) -> bytes:
        """The compressed stream of a frame.

        Raises:
            RefusedError: "truncated", or "undecodable": it is longer than `most` bytes.
        """
        if self._offsets:
            start = self._base + self._offsets[index]
            stop = self._base + self._offsets[index + 1] if index + 1 < len(self._offsets) else self._end
            if self._item(start) is not None:
                return self._join(list(self._fragments(start, stop)), most)
        if index >= len(self._starts):
            raise RefusedError("truncated", f"{len(self._starts)} of {self._frames} frames")
        # One frame takes all there is; of several the last takes what is left.
        last = self._starts[index + 1] if index + 1 < len(self._starts) else len(self._all)
        return self._join(self._all[self._starts[index] : last], most)

    @cached_property
    def _all(self) -> list[tuple[int, int]]:
        return list(self._fragments(self._base, self._end))

    @cached_property
    def _starts(self) -> list[int]:
        """The first fragment of each frame."""
        if self._frames == 1:
            return [0] if self._all else []
        if self._is_rle or len(self._all) == self._frames:
            return list(range(len(self._all)))
        return [number for number, (place, _) in enumerate(self._all) if self._begins_stream(place)]

    def _begins_stream(self, place: int) -> bool:
        self._file.seek(place)
        return self._file.read(8).startswith(_STARTS)

    def _item(self, place: int) -> int | None:
        """Length of the item whose header stands at `place`; None if none does."""
        if not 0 <= place <= self._end - 8:
            return None
        self._file.seek(place)
        header = self._file.read(8)
        return int.from_bytes(header[4:], "little") if header[:4] == _ITEM else None

    def _fragments(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Place and length of the fragments between two places, up to what is no item or ends the sequence."""
        for _ in range(MAX_FRAGMENTS):
            length = self._item(start) if start < stop else None
            if length is None or length == _UNDEFINED:
                return
            if length:
                yield start + 8, length
            start += 8 + length
        raise RefusedError("too_large", f"more than {MAX_FRAGMENTS} fragments")

    def _join(self, fragments: list[tuple[int, int]], most: int) -> bytes:
        if any(place + length > self._end for place, length in fragments):
            raise RefusedError("truncated", "the file ends in the frame")
        total = sum(length for _, length in fragments)
        if total > most:
            raise RefusedError("undecodable", f"a compressed frame of {total} bytes, {most} at most are plausible")
        parts = []
        for place, length in fragments:
            self._file.seek(place)
            parts.append(self._file.read(length))
        return b"".join(parts)
