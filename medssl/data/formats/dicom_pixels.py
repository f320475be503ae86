"""Stored pixel values out of DICOM's Pixel Data: which decoder, which bits, which sign (PS3.5 section 8, PS3.3 C.7.6.3)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata

import gdcm
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from medssl.data.formats.codestream import FrameHeader, frame_header, has_end
from medssl.data.formats.dicom_header import element, text, whole_number
from medssl.data.formats.guard import captured_stderr
from medssl.data.formats.items import MAX_PIXELS, RefusedError

KEYWORDS = (
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData", "FloatPixelData",
    "DoubleFloatPixelData", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""What this module and `dicom` read of an image."""

# GDCM writes to stderr what it finds wrong, values of the file included.
gdcm.Trace.DebugOff()
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()

# For each compressed syntax the plugins of pydicom that may decode it; the first that is installed does, always.
_PLUGINS: dict[str, tuple[str, ...]] = {
    uid.RLELossless: ("pydicom",),
    uid.JPEGBaseline8Bit: ("gdcm",),
    uid.JPEGExtended12Bit: ("gdcm",),
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGLSLossless: ("gdcm",),
    uid.JPEGLSNearLossless: ("gdcm",),
    uid.JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
}
_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)


@dataclass(frozen=True)
class Layout:
    """The Image Pixel Module of one grey frame, checked."""

    rows: int
    columns: int
    allocated: int  # 8, 16 or 32
    stored: int
    high_bit: int
    signed: bool

    @property
    def value_range(self) -> tuple[int, int]:
        """Lowest and highest stored value that Bits Stored and Pixel Representation allow."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.signed else (0, (1 << self.stored) - 1)


def layout_of(dataset: Dataset) -> Layout:
    """The layout of the one grey frame of `dataset`.

    Raises:
        RefusedError: "colour", "multi_frame", "bad_header", "unsupported_type" or "too_large".
    """
    photometric = (text(dataset, "PhotometricInterpretation") or "").upper()
    samples = whole_number(dataset, "SamplesPerPixel", 1)
    if samples > 1 or photometric.startswith(("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK", "XYB")):
        raise RefusedError("colour", f"{samples} samples a pixel" if samples > 1 else "palette")
    frames = whole_number(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise RefusedError("multi_frame", f"{frames} frames")
    if any(keyword in dataset for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")):
        # Their rescale, window and spacing stand in functional groups (PS3.3 C.7.6.16), one frame or many.
        raise RefusedError("multi_frame", "enhanced object")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedError("bad_header", "PhotometricInterpretation is absent or unknown")
    if "PixelData" not in dataset:
        raise RefusedError("unsupported_type", "floating-point pixels")
    rows, columns = whole_number(dataset, "Rows"), whole_number(dataset, "Columns")
    if rows < 1 or columns < 1:
        raise RefusedError("bad_header", f"{rows} rows, {columns} columns")
    if rows * columns > MAX_PIXELS:
        raise RefusedError("too_large", f"{rows} rows, {columns} columns")
    allocated, stored = whole_number(dataset, "BitsAllocated"), whole_number(dataset, "BitsStored")
    high_bit = whole_number(dataset, "HighBit", stored - 1)
    representation = whole_number(dataset, "PixelRepresentation")
    if allocated not in (8, 16, 32):
        raise RefusedError("unsupported_type", f"{allocated} bits allocated")
    if not (1 <= stored <= high_bit + 1 <= allocated) or representation not in (0, 1):
        raise RefusedError(
            "bad_header", f"bits allocated {allocated}, stored {stored}, high bit {high_bit}, sign {representation}"
        )
    return Layout(rows, columns, allocated, stored, high_bit, bool(representation))


def decode(dataset: Dataset, layout: Layout, syntax: uid.UID) -> tuple[np.ndarray, str]:
    """Stored values (H, W), uint8, int16, uint16 or int32, and the decoder's name and version. Padding is still in.

    Raises:
        RefusedError: "unsupported_syntax", "truncated", "undecodable", "bad_header" or "unsupported_type".
    """
    data = element(dataset, "PixelData")
    if not isinstance(data, bytes):
        raise RefusedError("truncated", "Pixel Data is empty")
    if syntax in _NATIVE:
        _check_native(data, layout)
        container = _container(data, dataset["PixelData"].VR, layout, syntax, plugin="")
        return unpack(container, layout), _version("pydicom")
    plugin = plugin_for(syntax)
    stream = _check_encapsulated(data, layout, syntax)
    with captured_stderr() as messages:
        container = _container(data, "OB", layout, syntax, plugin)
    # libjpeg inside GDCM fills what it cannot decode and says so on stderr alone. Surplus bytes before a marker are
    # harmless: some encoders pad there.
    if any("Corrupt JPEG data" in line and "extraneous bytes" not in line for line in messages):
        raise RefusedError("undecodable", f"{syntax_name(syntax)}: corrupt data")
    return unpack(container, layout, stream), _version(plugin)


def plugin_for(syntax: uid.UID) -> str:
    """The plugin of pydicom that decodes a compressed syntax.

    Raises:
        RefusedError: "unsupported_syntax".
    """
    if syntax in _PLUGINS:
        installed = get_decoder(syntax).available_plugins
        for plugin in _PLUGINS[syntax]:
            if plugin in installed:
                return plugin
    raise RefusedError("unsupported_syntax", syntax_name(syntax))


def syntax_name(syntax: uid.UID) -> str:
    """The syntax's name in PS3.6; never the UID of one that is not there, which may name its owner."""
    return syntax.name if syntax in uid.UID_dictionary else "a private transfer syntax"


def unpack(container: np.ndarray, layout: Layout, stream: FrameHeader | None = None) -> np.ndarray:
    """Stored values from containers of `layout.allocated` bits, whatever stands in their unused bits (PS3.5 8.1.1).

    A compressed stream (`stream`) has its own depth. PS3.5 8.2 wants it equal to Bits Stored, and where the two
    differ the stream is right about its own samples; values beyond Bits Stored, or whose sign cannot be told, are refused.

    Raises:
        RefusedError: "bad_header" or "unsupported_type".
    """
    size = 8 * container.dtype.itemsize
    width, lowest_bit = (stream.precision, 0) if stream else (layout.stored, layout.high_bit + 1 - layout.stored)
    # Shifted to the top and back: overlays above Bits Stored fall off, and a signed right shift extends the sign.
    kind = np.dtype(f"{'i' if layout.signed else 'u'}{container.dtype.itemsize}")
    values = container << (size - width - lowest_bit)
    values = values.view(kind) >> (size - width)
    if stream and width != layout.stored:
        lowest, highest = layout.value_range
        if values.min() < lowest or values.max() > highest:
            raise RefusedError("bad_header", f"values beyond Bits Stored {layout.stored} in a stream of {width} bits")
        if width < layout.stored and stream.signed != layout.signed and bool(((container >> (width - 1)) & 1).any()):
            raise RefusedError("bad_header", f"sign unknown: Bits Stored {layout.stored}, stream of {width} bits")
    if kind == np.uint32:
        if values.max() > np.iinfo(np.int32).max:
            raise RefusedError("unsupported_type", "values of 2**31 and more")
        return values.astype(np.int32)
    return values.astype(np.int16) if kind == np.int8 else values


def _check_native(data: bytes, layout: Layout) -> None:
    expected = layout.rows * layout.columns * layout.allocated // 8
    if len(data) < expected:
        raise RefusedError("truncated", f"{len(data)} of {expected} bytes of pixel data")
    # Padding at the end is met with; room for a second frame means that rows, columns or depth are wrong.
    if len(data) >= 2 * expected and len(data) > expected + 1:
        raise RefusedError("bad_header", f"{len(data)} bytes of pixel data for one frame of {expected}")


def _check_encapsulated(data: bytes, layout: Layout, syntax: uid.UID) -> FrameHeader | None:
    """The frame header of the compressed stream; None for RLE, which has none."""
    try:
        frame = get_frame(data, 0, number_of_frames=1)
    except Exception as error:  # pydicom raises what it happens to meet in a damaged encapsulation
        raise RefusedError("truncated", "damaged encapsulation") from error
    if syntax == uid.RLELossless:
        return None
    stream = frame_header(frame)
    if stream is None:
        raise RefusedError("undecodable", f"no frame header in {syntax_name(syntax)}")
    if (stream.rows, stream.columns, stream.components) != (layout.rows, layout.columns, 1):
        raise RefusedError(
            "undecodable",
            f"stream of {stream.rows}x{stream.columns}x{stream.components} for an image of {layout.rows}x{layout.columns}",
        )
    if syntax == uid.JPEGExtended12Bit and (stream.precision, layout.stored) != (8, 8):
        raise RefusedError("unsupported_syntax", f"{syntax_name(syntax)}, {stream.precision} bits")
    if stream.precision > layout.allocated:
        raise RefusedError("bad_header", f"stream of {stream.precision} bits for {layout.allocated} bits allocated")
    if not has_end(frame):
        raise RefusedError("truncated", "the compressed stream has no end marker")
    return stream


def _container(data: bytes, vr: str, layout: Layout, syntax: uid.UID, plugin: str) -> np.ndarray:
    """The decoder's output, unsigned (H, W), native byte order, with none of pydicom's corrections of bits and signs."""
    try:
        pixels, _ = get_decoder(syntax).as_array(
            data,
            index=0,
            raw=True,
            decoding_plugin=plugin,
            correct_unused_bits=False,
            apply_j2k_sign_correction=False,
            apply_jls_sign_correction=False,
            rows=layout.rows,
            columns=layout.columns,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            bits_allocated=layout.allocated,
            bits_stored=layout.stored,
            pixel_representation=int(layout.signed),
            pixel_keyword="PixelData",
            pixel_vr=vr,
        )
    except MemoryError:
        raise
    except Exception as error:  # the plugins share no class of exceptions
        raise RefusedError("undecodable", syntax_name(syntax)) from error
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")).view(f"u{pixels.dtype.itemsize}")


@functools.cache
def _version(plugin: str) -> str:
    if plugin == "gdcm":
        return f"gdcm {gdcm.Version.GetVersion()}"
    if plugin == "pylibjpeg":
        return f"pylibjpeg-openjpeg {metadata.version('pylibjpeg-openjpeg')}"
    return f"pydicom {pydicom.__version__}"
