"""One frame out of Pixel Data: which decoder, which bits, which sign, which colours (PS3.5 section 8, PS3.3 C.7.6.3)."""

from __future__ import annotations

import functools
import io
from importlib import metadata

import gdcm
import numpy as np
import PIL
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from medssl.data.formats.codestream import JPEG_2000, FrameHeader, frame_header, has_end, is_sound, scans
from medssl.data.formats.dicom_colour import rgb_of
from medssl.data.formats.dicom_layout import Layout
from medssl.data.formats.dicom_rle import decode_rle
from medssl.data.formats.guard import captured_stderr
from medssl.data.formats.items import MAX_PIXELS, RefusedError

# GDCM writes to stderr what it finds wrong, values of the file included.
gdcm.Trace.DebugOff()
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()

# For each compressed syntax the plugins of pydicom that may decode it; the first that is installed does, always.
_PLUGINS: dict[str, tuple[str, ...]] = {
    uid.RLELossless: ("pydicom",),  # always there; see `dicom_rle`
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
# The SOF markers of ISO/IEC 10918-1 that a syntax is made of; progressive ones have syntaxes of their own, long retired.
_PROCESSES: dict[str, tuple[int, ...]] = {
    uid.JPEGBaseline8Bit: (0xC0, 0xC1),
    uid.JPEGExtended12Bit: (0xC0, 0xC1),
    uid.JPEGLossless: (0xC3,),
    uid.JPEGLosslessSV1: (0xC3,),
    uid.JPEGLSLossless: (0xF7,),
    uid.JPEGLSNearLossless: (0xF7,),
}
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
"""The syntaxes whose pixels are not compressed."""

MAX_SCANS = 100
"""Most scans of a JPEG, each of which may touch every pixel at a cost of a few bytes; three components need three."""


def decode_native(data: bytes, layout: Layout, syntax: uid.UID) -> np.ndarray:
    """One frame that is not compressed; `data` is its bytes.

    Returns:
        Stored values (H, W): uint8, int16, uint16, int32, or float32 and float64; or RGB (H, W, 3) uint8.

    Raises:
        RefusedError: "undecodable" or "unsupported_type".
    """
    if layout.is_float:
        kind = np.dtype(f"{'>' if syntax == uid.ExplicitVRBigEndian else '<'}f{layout.allocated // 8}")
        return np.frombuffer(data, kind).astype(kind.newbyteorder("=")).reshape(layout.rows, layout.columns)
    if layout.samples == 1:
        kind = np.dtype(f"{'>' if syntax == uid.ExplicitVRBigEndian else '<'}u{layout.allocated // 8}")
        container = np.frombuffer(data, kind).reshape(layout.rows, layout.columns)
        return unpack(container.astype(kind.newbyteorder("="), copy=False), layout)
    return rgb_of(_container(io.BytesIO(data), layout, syntax, plugin=""), layout.photometric)


def decode_bits(data: bytes, layout: Layout, first_bit: int) -> np.ndarray:
    """One frame of one bit a pixel (PS3.5 8.1.1: the first pixel is the lowest bit), (H, W) uint8 of 0 and 1."""
    count = layout.rows * layout.columns
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    return bits[first_bit : first_bit + count].reshape(layout.rows, layout.columns)


def decode_compressed(frame: bytes, layout: Layout, syntax: uid.UID) -> np.ndarray:
    """One frame from its compressed stream, as `decode_native` gives it.

    Raises:
        RefusedError: "unsupported_syntax", "truncated", "undecodable", "bad_header" or "unsupported_type".
    """
    plugin = plugin_for(syntax)
    if layout.is_float or layout.allocated == 1:
        raise RefusedError(
            "unsupported_type", f"{syntax_name(syntax)} of {'floating-point' if layout.is_float else '1-bit'} pixels"
        )
    _check_cost(layout)
    stream = None if syntax == uid.RLELossless else _check_stream(frame, layout, syntax)
    messages: list[str] = []
    if syntax == uid.RLELossless:
        container = decode_rle(frame, layout)
    else:
        with captured_stderr() as messages:
            container = _container(io.BytesIO(encapsulate([frame], has_bot=False)), layout, syntax, plugin)
    # libjpeg inside GDCM fills what it cannot decode and says so on stderr alone. Surplus bytes before a marker are
    # harmless: some encoders pad there.
    if any("Corrupt JPEG data" in line and "extraneous bytes" not in line for line in messages):
        raise RefusedError("undecodable", f"{syntax_name(syntax)}: corrupt data")
    if layout.samples == 1:
        return unpack(container, layout, stream)
    colours = stream.colour if stream else None
    if syntax in _PROCESSES or syntax == uid.RLELossless:
        is_ybr = (colours or layout.photometric).startswith("YBR")
    else:
        # YBR_ICT and YBR_RCT name a transformation that the decoder undoes where the stream asks for it.
        is_ybr = colours is None and layout.photometric in ("YBR_FULL", "YBR_FULL_422")
    return rgb_of(container, "YBR_FULL" if is_ybr else "RGB")


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
    if width == size:
        values = container.view(kind)
    elif not layout.signed and lowest_bit == 0:
        values = container & container.dtype.type((1 << width) - 1)
    else:
        values = (container << (size - width - lowest_bit)).view(kind)
        values >>= size - width
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


def _check_cost(layout: Layout) -> None:
    """See that the decoder's buffers, of four bytes a sample and more, stay below a gigabyte."""
    if layout.rows * layout.columns * layout.samples > MAX_PIXELS:
        raise RefusedError("too_large", f"{layout.rows} rows, {layout.columns} columns, {layout.samples} samples, compressed")


def _check_stream(frame: bytes, layout: Layout, syntax: uid.UID) -> FrameHeader:
    """The frame header of a compressed stream that a decoder may be given."""
    stream = frame_header(frame)
    if stream is None or stream.process not in _PROCESSES.get(syntax, (JPEG_2000,)):
        raise RefusedError("undecodable", f"no frame header in {syntax_name(syntax)}")
    if (stream.rows, stream.columns, stream.components) != (layout.rows, layout.columns, layout.samples):
        raise RefusedError(
            "undecodable",
            f"stream of {stream.rows}x{stream.columns}x{stream.components} "
            f"for an image of {layout.rows}x{layout.columns}x{layout.samples}",
        )
    if syntax == uid.JPEGExtended12Bit and (stream.precision, layout.stored) != (8, 8):
        raise RefusedError("unsupported_syntax", f"{syntax_name(syntax)}, {stream.precision} bits")
    if stream.precision > layout.allocated:
        raise RefusedError("bad_header", f"stream of {stream.precision} bits for {layout.allocated} bits allocated")
    if stream.components > 1 and stream.precision != 8:
        raise RefusedError("unsupported_type", f"colour in a stream of {stream.precision} bits")
    if not has_end(frame):
        raise RefusedError("truncated", "the compressed stream has no end marker")
    if syntax in _PROCESSES and not is_sound(frame):
        raise RefusedError("undecodable", f"{syntax_name(syntax)}: damaged segments")
    if syntax in _PROCESSES and scans(frame) > MAX_SCANS:
        raise RefusedError("too_large", f"a JPEG of more than {MAX_SCANS} scans")
    return stream


def _container(source: io.BytesIO, layout: Layout, syntax: uid.UID, plugin: str) -> np.ndarray:
    """The decoder's output, unsigned (H, W) or (H, W, 3), native byte order, with none of pydicom's corrections."""
    photometric = "MONOCHROME2" if layout.samples == 1 else "RGB"
    if syntax in NATIVE and layout.is_subsampled:
        photometric = "YBR_FULL_422"
    try:
        pixels, _ = get_decoder(syntax).as_array(
            source,
            index=0,
            raw=True,
            decoding_plugin=plugin,
            correct_unused_bits=False,
            apply_j2k_sign_correction=False,
            apply_jls_sign_correction=False,
            rows=layout.rows,
            columns=layout.columns,
            number_of_frames=1,
            samples_per_pixel=layout.samples,
            planar_configuration=layout.planar if syntax in NATIVE else 0,
            photometric_interpretation=photometric,
            bits_allocated=layout.allocated,
            bits_stored=layout.stored,
            pixel_representation=int(layout.signed),
            pixel_keyword="PixelData",
            pixel_vr="OB",
        )
    except MemoryError:
        raise
    except Exception as error:  # the plugins share no class of exceptions
        raise RefusedError("undecodable", syntax_name(syntax)) from error
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")).view(f"u{pixels.dtype.itemsize}")


@functools.cache
def version_of(plugin: str, syntax: uid.UID) -> str:
    """Name and version of what decodes under the name of a plugin; "": pixels that are not compressed, found by pydicom."""
    if plugin == "gdcm":
        return f"gdcm {gdcm.Version.GetVersion()}"
    if plugin == "pylibjpeg":
        return f"pylibjpeg-openjpeg {metadata.version('pylibjpeg-openjpeg')}"
    if syntax == uid.RLELossless:
        return f"pillow {PIL.__version__}"
    return f"pydicom {pydicom.__version__}"
