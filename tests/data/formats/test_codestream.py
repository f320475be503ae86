"""Frame headers of compressed streams."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medssl.data.formats.codestream import FrameHeader, frame_header, has_end


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
    assert frame_header(jpeg) == FrameHeader(rows=30, columns=20, components=1, precision=8, signed=False)


def test_jpeg_may_have_fill_bytes_before_a_marker(jpeg):
    assert frame_header(jpeg[:2] + b"\xff\xff" + jpeg[2:]).rows == 30


def test_jpeg_2000_says_sign_depth_and_size_less_its_offset():
    assert frame_header(_siz(25, 33, 0x80 | 11, left=5, top=3)) == FrameHeader(30, 20, 1, 12, True)


def test_jpeg_2000_inside_jp2():
    box = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00\x00\x00\x00jp2c"
    assert frame_header(box + _siz(20, 30, 7)) == FrameHeader(30, 20, 1, 8, False)


def test_subsampled_jpeg_2000_is_refused():
    assert frame_header(_siz(20, 30, 7, step=2)) is None


def test_whatever_is_cut_or_foreign_has_no_header(jpeg):
    for stream in (jpeg, _siz(20, 30, 7)):
        start = next(length for length in range(len(stream) + 1) if frame_header(stream[:length]) is not None)
        assert frame_header(stream[:start]) == frame_header(stream)
    assert frame_header(b"") is None
    assert frame_header(b"GIF89a") is None
    assert frame_header(b"\xff\xd8\xff\xda\x00\x02") is None


def test_the_end_marker_may_be_followed_by_padding(jpeg):
    assert has_end(jpeg)
    assert has_end(jpeg + b"\0")
    assert not has_end(jpeg[:-2])
