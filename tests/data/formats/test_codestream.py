"""Frame headers of compressed streams."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medssl.data.formats.codestream import JPEG_2000, FrameHeader, frame_header, has_end, is_sound, scans


@pytest.fixture
def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(buffer, "JPEG", comment=b"\xff\xc0 not a frame header")
    return buffer.getvalue()


def _siz(columns: int, rows: int, depth: int, *, left: int = 0, top: int = 0, step: int = 1) -> bytes:
    words = (columns, rows, left, top, columns, rows, 0, 0)
    return (
        b"\xff\x4f\xff\x51\x00\x29\x00\x00"
        + b"".join(word.to_bytes(4, "big") for word in words)
        + b"\x00\x01"
        + bytes([depth, step, step])
    )


def test_jpeg_passes_over_other_segments(jpeg):
    assert frame_header(jpeg) == FrameHeader(30, 20, 1, 8, False, process=0xC0)


def test_jpeg_may_have_fill_bytes_before_a_marker(jpeg):
    assert frame_header(jpeg[:2] + b"\xff\xff" + jpeg[2:]).rows == 30


def test_jpeg_2000_says_sign_depth_and_size_less_its_offset():
    assert frame_header(_siz(25, 33, 0x80 | 11, left=5, top=3)) == FrameHeader(30, 20, 1, 12, True, process=JPEG_2000)


def test_jpeg_2000_inside_jp2():
    box = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00\x00\x00\x00jp2c"
    assert frame_header(box + _siz(20, 30, 7)) == FrameHeader(30, 20, 1, 8, False, process=JPEG_2000)


def test_subsampled_jpeg_2000_is_refused():
    assert frame_header(_siz(20, 30, 7, step=2)) is None


def test_whatever_is_cut_or_foreign_has_no_header(jpeg):
    for stream in (jpeg, _siz(20, 30, 7)):
        start = next(length for length in range(len(stream) + 1) if frame_header(stream[:length]) is not None)
        assert frame_header(stream[:start]) == frame_header(stream)
    assert frame_header(b"") is None
    assert frame_header(b"GIF89a") is None
    assert frame_header(b"\xff\xd8\xff\xda\x00\x02") is None


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + (2 + len(data)).to_bytes(2, "big") + data


def _jpeg(*applications: bytes, components: bytes = b"\x01\x11\0\x02\x11\0\x03\x11\0") -> bytes:
    frame = _segment(0xC0, b"\x08\0\x05\0\x04" + bytes([len(components) // 3]) + components)
    return b"\xff\xd8" + b"".join(applications) + frame


@pytest.mark.parametrize(
    ("stream", "colour"),
    [
        (_jpeg(), None),
        (_jpeg(_segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")), "YBR"),
        (_jpeg(_segment(0xE0, b"JFXX\0")), None),
        (_jpeg(_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x00")), "RGB"),
        (_jpeg(_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01")), "YBR"),
        (_jpeg(_segment(0xEE, b"Adobe\0\0\0\0\0")), None),  # cut before its transform
        (_jpeg(components=b"R\x11\0G\x11\0B\x11\0"), "RGB"),
        (_jpeg(components=b"\x01\x22\0\x02\x11\0\x03\x11\0"), "YBR"),  # subsampled: chroma
        (_jpeg(components=b"\x01\x11\0"), None),
    ],
)
def test_what_a_jpeg_says_of_its_colours(stream, colour):
    header = frame_header(stream)
    assert (header.colour, header.process, header.rows, header.columns) == (colour, 0xC0, 5, 4)


def test_jpeg_2000_with_a_component_transformation_gives_rgb():
    siz = _siz(20, 30, 7)
    three = siz[:4] + b"\x00\x2f" + siz[6:40] + b"\0\x03" + b"\x07\x01\x01" * 3
    for transformed in (0, 1):
        stream = three + b"\xff\x52\x00\x0c\x00\x00\x00\x01" + bytes([transformed]) + b"\0" * 5 + b"\xff\x90"
        header = frame_header(stream)
        assert (header.components, header.colour) == (3, "RGB" if transformed else None)
    assert frame_header(three[:-3] + b"\x08\x01\x01\xff\x90") is None  # components of two depths


def test_scans_are_counted(jpeg):
    assert scans(jpeg) == 1


def test_what_libjpeg_reads_without_a_warning(jpeg):
    assert is_sound(jpeg)
    tables = jpeg.index(b"\xff\xc4")
    assert not is_sound(jpeg[:tables] + b"\0" + jpeg[tables:])
    assert not is_sound(jpeg[:tables])
    assert not is_sound(jpeg[:tables] + b"\xff\xd9")
    assert not is_sound(jpeg.replace(b"JFIF\0\x01", b"JFIF\0\x02"))
    for transform in (0, 1, 2, 255):
        adobe = _segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
        assert is_sound(jpeg[:2] + adobe + jpeg[2:]) is (transform < 2)


def test_the_end_marker_may_be_followed_by_padding(jpeg):
    assert has_end(jpeg)
    assert has_end(jpeg + b"\0")
    assert not has_end(jpeg[:-2])
