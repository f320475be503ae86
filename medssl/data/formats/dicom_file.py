"""A DICOM file whose frames are read one at a time: a cine of a gigabyte costs one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import BinaryIO

import numpy as np
from pydicom import uid

from medssl.data.formats import dicom_colour, dicom_display, dicom_frames, dicom_header, dicom_layout
from medssl.data.formats.dicom_encapsulation import Encapsulated
from medssl.data.formats.dicom_header import element, term
from medssl.data.formats.dicom_layout import Layout, layout_of
from medssl.data.formats.dicom_parse import parse
from medssl.data.formats.dicom_pixels import (
    NATIVE,
    decode_bits,
    decode_compressed,
    decode_native,
    plugin_for,
    syntax_name,
    version_of,
)
from medssl.data.formats.dicom_terms import OTHER_MODALITIES
from medssl.data.formats.items import Header, RefusedError

HEADER_KEYWORDS = (*dicom_header.KEYWORDS, *dicom_frames.KEYWORDS, "NumberOfFrames")
"""What `frame_headers` reads."""
IMAGE_KEYWORDS = (
    *HEADER_KEYWORDS, *dicom_layout.KEYWORDS, *dicom_display.KEYWORDS, *dicom_colour.KEYWORDS,
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
"""What reading images takes."""


class DicomFile:
    """An open DICOM file.

    Attributes:
        dataset: the elements asked for, without pixels.
        syntax: the transfer syntax.
    """

    def __init__(self, file: BinaryIO, tags: Sequence[str] = (), keywords: Sequence[str] = IMAGE_KEYWORDS) -> None:
        """Reads the header; `file` must stay open while frames are read.

        Args:
            tags: further keywords whose elements to keep in `dataset`.
            keywords: those that the caller of `frame` and `headers` needs; HEADER_KEYWORDS if only headers are wanted.

        Raises:
            RefusedError: "not_dicom", "no_pixels", "too_large", "undecodable" or "bad_header".
        """
        self._parsed = parse(file, (*keywords, *tags))
        self._tags = tuple(tags)
        self.dataset = self._parsed.dataset
        if self._parsed.syntax is None:
            self._check_has_pixels()
            raise RefusedError("bad_header", "TransferSyntaxUID is absent or not one UID")
        self.syntax: uid.UID = self._parsed.syntax

    @property
    def syntax_name(self) -> str:
        """The transfer syntax in the words of PS3.6."""
        return syntax_name(self.syntax)

    @property
    def decoder(self) -> str:
        """Name and version of what decodes the frames.

        Raises:
            RefusedError: "unsupported_syntax".
        """
        return version_of("" if self.syntax in NATIVE else plugin_for(self.syntax), self.syntax)

    @property
    def is_little_endian(self) -> bool:
        """Whether words in the file begin with their low byte."""
        return self.syntax != uid.ExplicitVRBigEndian

    @cached_property
    def layout(self) -> Layout:
        """How frames lie in the pixel data.

        Raises:
            RefusedError: "no_pixels", "truncated" (no pixels where there must be some), "bad_header", "unsupported_type" or
                "too_large".
        """
        self._check_has_pixels()
        pixels = self._parsed.pixels
        layout = layout_of(self.dataset, pixels.keyword)
        if self.syntax not in NATIVE:
            return layout
        if pixels.length is None:
            raise RefusedError("bad_header", f"encapsulated pixel data in {self.syntax_name}")
        if pixels.length == 0:
            raise RefusedError("truncated", "Pixel Data is empty")
        promised = 8 * pixels.length
        whole = replace(layout, photometric="YBR_FULL")
        if layout.is_subsampled and promised >= layout.frames * whole.bits:
            layout = whole  # all samples are there, whatever the header calls them
        if promised >= (layout.frames + 1) * layout.bits and pixels.length > layout.frames * layout.size + 1:
            # Padding at the end is met with; room for a further frame means that rows, columns, depth or frames are wrong.
            raise RefusedError(
                "bad_header", f"{pixels.length} bytes of pixel data for {layout.frames} frames of {layout.size} bytes"
            )
        if self._parsed.guessed and not 0 <= promised - layout.frames * layout.bits < 16:
            raise RefusedError("bad_header", "TransferSyntaxUID is absent, and the pixel data have not the length of any guess")
        return layout

    @cached_property
    def present(self) -> int:
        """Frames that the file holds: fewer than `layout.frames` if it was cut. The last of them may be incomplete.

        Raises:
            RefusedError: as `layout`; "truncated" if there is none.
        """
        coded, size = self._encapsulated, self.layout.size
        count = coded.count if coded is not None else 8 * self._available // self.layout.bits
        if count < 1:
            raise RefusedError(
                "truncated", "no frame" if coded is not None else f"{self._available} of {size} bytes of pixel data"
            )
        return min(count, self.layout.frames)

    def frame(self, index: int) -> np.ndarray:
        """One frame, decoded from its own bytes alone.

        Returns:
            Grey: stored values (H, W), uint8, int16, uint16, int32, float32 or float64, padding included, before any
            look-up table. Colour: RGB (H, W, 3) uint8.

        Raises:
            RefusedError: as `layout`; "unsupported_syntax", "truncated" or "undecodable".
        """
        layout = self.layout
        if self._encapsulated is not None:
            # Coding may enlarge noise, but not to twice its size.
            most = 2 * layout.size + 2**16
            return self._coloured(decode_compressed(self._encapsulated.frame(index, most), layout, self.syntax))
        if index >= self.present:
            raise RefusedError("truncated", f"{self._available} bytes for {layout.frames} frames of {layout.size}")
        start, first_bit = divmod(index * layout.bits, 8)
        data = self._bytes(start, (first_bit + layout.bits + 7) // 8)
        if layout.allocated == 1:
            return decode_bits(data, layout, first_bit)
        return self._coloured(decode_native(data, layout, self.syntax))

    def headers(self) -> list[Header]:
        """The headers of all frames; see `dicom_frames.frame_headers`."""
        return dicom_frames.frame_headers(self.dataset, self._tags)

    def header(self, index: int) -> Header:
        """The header of one frame."""
        return dicom_frames.frame_header_of(self.dataset, self._whole_header, index)

    @cached_property
    def _whole_header(self) -> Header:
        return dicom_header.header_of(self.dataset, self._tags)

    @cached_property
    def _palette(self) -> tuple[np.ndarray, int]:
        return dicom_colour.palette_of(self.dataset, self.is_little_endian, self.layout.signed)

    def _coloured(self, pixels: np.ndarray) -> np.ndarray:
        if self.layout.photometric != "PALETTE COLOR":
            return pixels
        return dicom_colour.through_palette(pixels, *self._palette)

    @cached_property
    def _available(self) -> int:
        """Bytes of the element with pixels that are in the file."""
        pixels = self._parsed.pixels
        left = self._parsed.size - pixels.offset
        return left if pixels.length is None else min(pixels.length, left)

    @cached_property
    def _encapsulated(self) -> Encapsulated | None:
        layout, pixels = self.layout, self._parsed.pixels
        if self.syntax in NATIVE:
            return None
        plugin_for(self.syntax)
        tables = [element(self.dataset, keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
        return Encapsulated(
            self._parsed.file,
            pixels.offset,
            pixels.offset + self._available,
            layout.frames,
            is_rle=self.syntax == uid.RLELossless,
            extended=(tables[0], tables[1]) if all(isinstance(table, bytes) for table in tables) else None,
        )

    def _bytes(self, start: int, count: int) -> bytes:
        """Bytes of the pixels' value; those of big-endian words of 16 bits, in which smaller pixels are packed, swapped."""
        pixels, file = self._parsed.pixels, self._parsed.file
        swapped = not self.is_little_endian and pixels.vr == "OW" and self.layout.allocated <= 8
        skipped = start % 2 if swapped else 0
        file.seek(pixels.offset + start - skipped)
        data = file.read(count + skipped + (count + skipped) % 2 if swapped else count)
        if swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()[skipped : skipped + count]
        if len(data) < count:
            raise RefusedError("truncated", f"{len(data)} of {count} bytes of a frame")
        return data

    def _check_has_pixels(self) -> None:
        other = term(self.dataset, "Modality", OTHER_MODALITIES)
        if other:
            raise RefusedError("no_pixels", other)
        if self._parsed.pixels is None:
            # pydicom ends a data set without a word where its file ends; Pixel Data come last.
            storage = self._parsed.storage.name if self._parsed.storage is not None else ""
            if "Image Storage" in storage:
                raise RefusedError("truncated", f"{storage} without Pixel Data")
            raise RefusedError("no_pixels")
