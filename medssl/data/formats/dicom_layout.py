"""The Image Pixel Module (PS3.3 C.7.6.3), checked: how frames lie in the pixel data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medssl.data.formats.dicom_header import text, whole_number
from medssl.data.formats.items import MAX_PIXELS, RefusedError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEYWORDS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""What `layout_of` reads."""

MAX_FRAMES = 2**20

_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True)
class Layout:
    """One frame, and how many of them there should be."""

    rows: int
    columns: int
    allocated: int  # 1, 8, 16 or 32; of floating-point pixels 32 or 64
    stored: int
    high_bit: int
    signed: bool
    samples: int = 1  # 1 or 3
    photometric: str = "MONOCHROME2"
    planar: int = 0
    frames: int = 1
    is_float: bool = False

    @property
    def value_range(self) -> tuple[int, int]:
        """Lowest and highest stored value that Bits Stored and Pixel Representation allow."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.signed else (0, (1 << self.stored) - 1)

    @property
    def is_subsampled(self) -> bool:
        """Whether two neighbours share their chroma where the frame is not compressed (PS3.3 C.7.6.3.1.2)."""
        return self.photometric.endswith("_422")

    @property
    def bits(self) -> int:
        """Bits of a frame that is not compressed. Frames of one bit a pixel follow each other without padding."""
        bits = self.rows * self.columns * self.samples * self.allocated
        return bits * 2 // 3 if self.is_subsampled else bits

    @property
    def size(self) -> int:
        """Bytes of a frame that is not compressed, rounded up."""
        return (self.bits + 7) // 8


def layout_of(dataset: Dataset, pixel_keyword: str = "PixelData") -> Layout:
    """The layout of the frames of `dataset`, whose pixels stand in the element `pixel_keyword`.

    Raises:
        RefusedError: "bad_header", "unsupported_type" or "too_large".
    """
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    if rows < 1 or columns < 1:
        raise RefusedError("bad_header", f"{rows} rows, {columns} columns")
    if rows * columns > MAX_PIXELS:
        raise RefusedError("too_large", f"{rows} rows, {columns} columns")
    frames = whole_number(dataset, "NumberOfFrames", 1)
    if not 1 <= frames <= MAX_FRAMES:
        raise RefusedError("bad_header" if frames < 1 else "too_large", f"{frames} frames")
    samples, photometric = _colours(dataset)
    planar = whole_number(dataset, "PlanarConfiguration", 0)
    if planar not in (0, 1):
        raise RefusedError("bad_header", f"planar configuration {planar}")
    if pixel_keyword != "PixelData":
        bits = 32 if pixel_keyword == "FloatPixelData" else 64
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise RefusedError("unsupported_type", "floating-point colours")
        return Layout(rows, columns, bits, bits, bits - 1, True, 1, photometric, 0, frames, is_float=True)
    allocated, stored, high_bit, signed = _bits(dataset)
    if samples == 3 and (allocated, stored, signed) != (8, 8, False):
        raise RefusedError("unsupported_type", f"colour of {'signed ' * signed}{stored} bits in {allocated}")
    layout = Layout(rows, columns, allocated, stored, high_bit, signed, samples, photometric, planar, frames)
    if layout.is_subsampled and columns % 2:
        raise RefusedError("bad_header", f"{columns} columns of subsampled chroma")
    return layout


def _colours(dataset: Dataset) -> tuple[int, str]:
    photometric = (text(dataset, "PhotometricInterpretation") or "").upper()
    samples = whole_number(dataset, "SamplesPerPixel", 1)
    if photometric not in _GREY + _COLOUR:
        if photometric in ("HSV", "ARGB", "CMYK", "XYB", "YBR_PARTIAL_420"):
            raise RefusedError("unsupported_type", photometric)
        raise RefusedError("bad_header", "PhotometricInterpretation is absent or unknown")
    if samples != (1 if photometric in _GREY else 3):
        raise RefusedError("bad_header", f"{samples} samples of {photometric}")
    return samples, photometric


def _bits(dataset: Dataset) -> tuple[int, int, int, bool]:
    allocated, stored = whole_number(dataset, "BitsAllocated"), whole_number(dataset, "BitsStored")
    high_bit = whole_number(dataset, "HighBit", stored - 1)
    representation = whole_number(dataset, "PixelRepresentation")
    if allocated not in (1, 8, 16, 32):
        raise RefusedError("unsupported_type", f"{allocated} bits allocated")
    if not (1 <= stored <= high_bit + 1 <= allocated) or representation not in (0, 1):
        raise RefusedError(
            "bad_header", f"bits allocated {allocated}, stored {stored}, high bit {high_bit}, sign {representation}"
        )
    return allocated, stored, high_bit, bool(representation)
