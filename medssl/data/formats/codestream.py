"""The first bytes of JPEG, JPEG-LS and JPEG 2000 streams: what the stream itself says of its size and depth.

Read before a decoder sees the stream, since decoders allocate what the stream asks for and hold the DICOM header's word
for its depth.
"""

from __future__ import annotations

from dataclasses import dataclass

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_SOC_SIZ = b"\xff\x4f\xff\x51"
_END_WITHIN = 64  # bytes at the end among which the end marker is sought: some writers pad


@dataclass(frozen=True)
class FrameHeader:
    """Size and depth of a compressed frame."""

    rows: int
    columns: int
    components: int
    precision: int  # bits a sample
    signed: bool  # only JPEG 2000 can say so


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


def _jpeg(stream: bytes) -> FrameHeader | None:
    """ISO/IEC 10918-1 B.2.2: SOF0 to SOF15 and, for JPEG-LS, ISO/IEC 14495-1 C.2.2: SOF55."""
    position = 2
    while stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # TEM, RSTn, SOI: no length follows
            position += 2
        elif marker in (0xD9, 0xDA):  # EOI, SOS
            return None
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return FrameHeader(
                rows=_integer(stream, position + 5, 2),
                columns=_integer(stream, position + 7, 2),
                components=stream[position + 9],
                precision=stream[position + 4],
                signed=False,
            )
        else:
            position += 2 + _integer(stream, position + 2, 2)
    return None


def _jpeg2000(stream: bytes) -> FrameHeader | None:
    """ISO/IEC 15444-1 A.5.1: SIZ follows SOC at once. A JP2 file around the stream is not conformant but met with."""
    start = stream.find(_SOC_SIZ)
    if start < 0 or (stream[start + 43], stream[start + 44]) != (1, 1):
        return None
    return FrameHeader(
        rows=_integer(stream, start + 12, 4) - _integer(stream, start + 20, 4),
        columns=_integer(stream, start + 8, 4) - _integer(stream, start + 16, 4),
        components=_integer(stream, start + 40, 2),
        precision=(stream[start + 42] & 0x7F) + 1,
        signed=bool(stream[start + 42] & 0x80),
    )


def _integer(stream: bytes, position: int, length: int) -> int:
    if position + length > len(stream):
        raise IndexError(position)
    return int.from_bytes(stream[position : position + length], "big")
