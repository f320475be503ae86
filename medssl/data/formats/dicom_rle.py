"""RLE Lossless (PS3.5 annex G): a PackBits stream for each byte of a sample, most significant first, unpacked by Pillow."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image as PillowImage

from medssl.data.formats.dicom_layout import Layout
from medssl.data.formats.items import RefusedError

HEADER = 64
"""Bytes of the header: the number of segments and the offsets of up to 15 (PS3.5 G.5)."""


def decode_rle(frame: bytes, layout: Layout) -> np.ndarray:
    """One frame, unsigned, (H, W) or (H, W, 3). It takes no more memory than the image, whatever the runs say.

    Raises:
        RefusedError: "truncated", or "undecodable": the segments are not those of the image, or one unpacks to too little.
    """
    if len(frame) < HEADER:
        raise RefusedError("truncated", f"{len(frame)} bytes of RLE Lossless")
    count, *offsets = struct.unpack_from("<16L", frame)
    width, pixels = layout.allocated // 8, layout.rows * layout.columns
    if count != layout.samples * width:
        raise RefusedError("undecodable", f"RLE Lossless: {count} segments for {layout.samples} samples of {width} bytes")
    out = np.empty((layout.samples, pixels, width), np.uint8)
    for number, (start, end) in enumerate(zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True)):
        if not HEADER <= start < end <= len(frame):
            raise RefusedError("truncated", f"segment {number + 1} of {count} of RLE Lossless")
        try:
            # As one row: Pillow cuts runs at the end of a row, and some encoders let them go on, against PS3.5 G.3.1.
            plane = PillowImage.frombuffer("L", (pixels, 1), frame[start:end], "packbits", "L")
        except (ValueError, OSError) as error:
            raise RefusedError("undecodable", f"RLE Lossless: segment {number + 1} of {count}") from error
        sample, byte = divmod(number, width)
        out[sample, :, width - 1 - byte] = np.asarray(plane)[0]
    values = out.reshape(layout.samples, pixels * width).view(f"<u{width}").reshape(layout.samples, layout.rows, layout.columns)
    return np.ascontiguousarray(values[0] if layout.samples == 1 else values.transpose(1, 2, 0))
