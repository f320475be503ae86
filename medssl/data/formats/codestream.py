"""The first bytes of JPEG, JPEG-LS and JPEG 2000 streams: what the stream itself says of its size, depth and colours.

Read before a decoder sees the stream, since decoders allocate what the stream asks for and hold the DICOM header's word
for its depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_SOC_SIZ = b"\xff\x4f\xff\x51"
_END_WITHIN = 64  # bytes at the end among which the end marker is sought: some writers pad

_EOI, _SOS = 0xD9, 0xDA

JPEG_2000 = 0x51
"""`FrameHeader.process` of JPEG 2000: its SIZ marker."""


@dataclass(frozen=True)
class FrameHeader:
    """Size and depth of a compressed frame."""

    rows: int
    columns: int
    components: int
    precision: int  # bits a sample
    signed: bool  # only JPEG 2000 can say so
    process: int = 0  # second byte of its SOF marker, or JPEG_2000
    colour: str | None = None  # "RGB" or "YBR": what decoders give; None: the stream does not say


def frame_header(stream: bytes) -> FrameHeader | None:
    """The frame header of `stream`; None if it has none, is cut before it, or subsamples its first component."""
    try:
        if stream.startswith(b"\xff\xd8"):
            return _jpeg(stream)
        if stream.startswith((_SOC_SIZ, _JP2_SIGNATURE)):
            return _jpeg2000(stream)
    except IndexError:
        pass
    return None


def has_end(stream: bytes) -> bool:
    """Whether the stream closes with EOI or EOC (both FF D9), padding aside."""
    return b"\xff\xd9" in stream[-_END_WITHIN:]


def scans(stream: bytes) -> int:
    """Number of scans of a JPEG stream at most: SOS markers, which coded data cannot imitate."""
    return stream.count(b"\xff\xda")


def is_sound(stream: bytes) -> bool:
    """Whether a JPEG stream up to its first scan is one that libjpeg reads without a warning.

    Its segments follow one another with no byte between them, JFIF is of version 1, and Adobe's transform is one of ITU-T
    T.872. GDCM ends the process where libjpeg warns before the first scan.
    """
    try:
        for marker, start, end in _segments(stream):
            data = stream[start:end]
            if marker == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 14 and data[5] != 1:
                return False
            if marker == 0xEE and data.startswith(b"Adobe") and len(data) >= 12 and data[11] > 1:
                return False
            if marker == _SOS:
                return True
    except IndexError:
        pass
    return False


def _segments(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the parameters of each segment up to the first scan (ISO/IEC 10918-1 B.1.1.4)."""
    position = 2
    while stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # TEM, RSTn, SOI: no length follows
            position += 2
        elif marker == _EOI:
            return
        else:
            end = position + 2 + _integer(stream, position + 2, 2)
            yield marker, position + 4, end
            if marker == _SOS:
                return
            position = end


def _jpeg(stream: bytes) -> FrameHeader | None:
    """ISO/IEC 10918-1 B.2.2: SOF0 to SOF15 and, for JPEG-LS, ISO/IEC 14495-1 C.2.2: SOF55."""
    colour = None
    for marker, start, end in _segments(stream):
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            components = stream[start + 5]
            colour = colour or _colour_of_components(stream[start + 6 : end])
            return FrameHeader(
                rows=_integer(stream, start + 1, 2),
                columns=_integer(stream, start + 3, 2),
                components=components,
                precision=stream[start],
                signed=False,
                process=marker,
                colour=colour if components == 3 else None,
            )
        if 0xE0 <= marker <= 0xEF:
            colour = colour or _colour_of_application(marker, stream[start:end])
    return None


def _colour_of_application(marker: int, data: bytes) -> str | None:
    """JFIF (ITU-T T.871) is always YCbCr; Adobe's marker (ITU-T T.872 section 6.5.3) says by its last byte."""
    if marker == 0xE0 and data.startswith(b"JFIF\0"):
        return "YBR"
    if marker == 0xEE and data.startswith(b"Adobe") and len(data) >= 12:
        return {0: "RGB", 1: "YBR"}.get(data[11])
    return None


def _colour_of_components(specifications: bytes) -> str | None:
    """Components named R, G and B; or a second one of fewer samples than the first, which only chroma has."""
    identifiers, sampling = specifications[0::3], specifications[1::3]
    if identifiers[:3] in (b"RGB", b"rgb"):
        return "RGB"
    return "YBR" if len(sampling) >= 3 and sampling[1] != sampling[0] else None


def _jpeg2000(stream: bytes) -> FrameHeader | None:
    """ISO/IEC 15444-1 A.5.1: SIZ follows SOC at once. A JP2 file around the stream is not conformant but met with."""
    start = stream.find(_SOC_SIZ)
    components = _integer(stream, start + 40, 2) if start >= 0 else 0
    depths = stream[start + 42 : start + 42 + 3 * components]
    # No component of an image that DICOM allows is subsampled, and all have one depth.
    if not components or len(depths) < 3 * components or depths != depths[:1] + b"\x01\x01" + depths[:-3]:
        return None
    return FrameHeader(
        rows=_integer(stream, start + 12, 4) - _integer(stream, start + 20, 4),
        columns=_integer(stream, start + 8, 4) - _integer(stream, start + 16, 4),
        components=components,
        precision=(depths[0] & 0x7F) + 1,
        signed=bool(depths[0] & 0x80),
        process=JPEG_2000,
        colour="RGB" if components == 3 and _is_transformed(stream, start + 2) else None,
    )


def _is_transformed(stream: bytes, position: int) -> bool:
    """Whether COD (A.6.1) asks for the multiple component transformation, which decoders undo: they then give RGB."""
    while stream[position] == 0xFF and stream[position + 1] != 0x90:  # up to the first tile
        if stream[position + 1] == 0x52:
            return stream[position + 8] == 1
        position += 2 + _integer(stream, position + 2, 2)
    return False


def _integer(stream: bytes, position: int, length: int) -> int:
    if position + length > len(stream):
        raise IndexError(position)
    return int.from_bytes(stream[position : position + length], "big")
