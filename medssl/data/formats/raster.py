"""PNG, JPEG and TIFF by Pillow: grey at 8 and 16 bits, colour at 8."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medssl.data.formats import tiff
from medssl.data.formats.finding import find_files
from medssl.data.formats.guard import captured_stderr, read_guarded
from medssl.data.formats.items import MAX_PIXELS, Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.opening import open_inside
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.raster_pixels import colour_values, grey_of, grey_values, is_constant

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MAX_BYTES = 5 * MAX_PIXELS
"""Largest file: Pillow reads chunks, and files inside archives, whole; the largest image needs four bytes a pixel."""
MAX_SCANS = 100
"""Most scans of a JPEG, each of which may touch every pixel at a cost of a few bytes; encoders write about ten."""
MAX_EXIF = 2**16
"""Most bytes of Exif metadata, which is what a JPEG marker holds; entries that overlap unpack to many times that."""


class RasterReader:
    """Files whose name or first bytes are those of a PNG, JPEG or TIFF image, in folders, .zip and .tar."""

    name = "raster"

    def find(
        self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> list[Item | Reject]:
        """Every file that is named or begins like one of the three; see `Reader.find`."""
        return [Item(path) for path in find_files(root, include, exclude, archives=True) if _is_candidate(root, path)]

    def read(
        self, root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> Iterator[Image | Volume | Reject]:
        """The image of one file; see `Reader.read`. These formats have no tags: `tags` is ignored."""
        return read_guarded(root, item, lambda file: [_read_file(file, options.channels)])


def read_colour(file: BinaryIO, *, constant: bool = False) -> Image:
    """One image as RGB, pixels (H, W, 3) uint8; grey gives three equal channels. `constant`: one value is an image too.

    Raises:
        RefusedError: as `RasterReader` rejects.
    """
    return _read_file(file, "rgb", constant=constant)


def _is_candidate(root: Path, path: str) -> bool:
    if path.lower().endswith(SUFFIXES):
        return True
    try:
        with open_inside(root, path) as file:
            return file.read(8).startswith(MAGIC)
    except (RefusedError, OSError):  # listed, so that reading it says what is the matter
        return True


def _read_file(file: BinaryIO, channels: str, *, constant: bool = False) -> Image:
    import PIL
    from PIL import Image as Pillow

    with _strict_pillow():
        head = file.read(32)
        if not head.startswith(MAGIC):
            raise RefusedError("not_raster")
        size, needed = file.seek(0, os.SEEK_END), tiff.directory_end(head)
        if size > MAX_BYTES:
            raise RefusedError("too_large", f"{size} bytes")
        tiff.check_directory(file)
        file.seek(0)
        try:
            with captured_stderr() as messages, Pillow.open(file, formats=("PNG", "JPEG", "TIFF")) as image:
                if image.format == "TIFF":
                    needed = max(needed, tiff.pixels_end(image))
                found = _load(image, head, channels)
            if tiff.has_error(messages):
                raise RefusedError("undecodable", "damaged TIFF")
        except (RefusedError, MemoryError):
            raise
        except Pillow.DecompressionBombError as error:
            raise RefusedError("too_large") from error
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            raise RefusedError(*_why_not_loaded(error, is_short=needed > size)) from error
    if not constant and is_constant(found.pixels):
        raise RefusedError("constant")
    found.decoder = f"pillow {PIL.__version__}"
    return found


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Pillow's two global switches as this reader needs them, whatever other code has made of them."""
    from PIL import Image as Pillow
    from PIL import ImageFile

    kept = ImageFile.LOAD_TRUNCATED_IMAGES, Pillow.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Pillow.MAX_IMAGE_PIXELS = False, MAX_PIXELS
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Pillow.MAX_IMAGE_PIXELS = kept


def _load(image: PillowImage, head: bytes, channels: str) -> Image:
    from PIL import ImageOps

    _check_size(image)
    depth, signed = _depth(image, head)
    if channels == "rgb" and depth > 8:
        raise RefusedError("unsupported_type", f"grey of {depth} bits in a set of colour images")
    inverted = image.format == "TIFF" and tiff.shows_white_as_zero(image)
    syntax = "JPEG" if image.format == "MPO" else image.format or ""
    image.load()
    # Pillow turns TIFF by its Orientation while loading and drops the tag, so that nothing is turned twice.
    ImageOps.exif_transpose(image, in_place=True)
    if channels == "rgb":
        pixels = colour_values(image)
    elif image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        pixels = grey_values(image, signed)
    else:
        pixels = colour_values(image)
        image.close()  # frees the largest block of memory before the next one is taken
        pixels = grey_of(pixels)
    lowest = -(1 << depth - 1) if signed else 0
    full_range = (float(lowest), float(lowest + (1 << depth) - 1))
    return Image(pixels=pixels, full_range=full_range, inverted=inverted, syntax=syntax)


def _why_not_loaded(error: Exception, is_short: bool) -> tuple[str, str]:
    """Reason and detail. Pillow tells a file that ends too soon from a damaged one by its words alone."""
    if is_short or isinstance(error, EOFError) or any(word in str(error).lower() for word in ("truncated", "not enough")):
        return "truncated", ""
    return "undecodable", type(error).__name__


def _check_size(image: PillowImage) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise RefusedError("too_large", f"{image.height} rows, {image.width} columns")
    if image.format == "TIFF":
        tiff.check_tiles(image)
    elif (frames := getattr(image, "n_frames", 1)) > 1:
        raise RefusedError("multi_frame", f"{frames} pages")
    if len(image.info.get("exif", b"")) > MAX_EXIF:
        raise RefusedError("too_large", f"{len(image.info['exif'])} bytes of Exif")
    if image.format in ("JPEG", "MPO"):
        _check_jpeg(image)


def _check_jpeg(image: PillowImage) -> None:
    """Start-of-scan markers cannot occur inside compressed data, where 255 is followed by 0 (ITU-T T.81, B.1.1.5)."""
    if image.mode == "CMYK" and "adobe" not in image.info:
        raise RefusedError("unsupported_type", "CMYK without Adobe's marker: unknown whether 0 or 255 is full ink")
    position, scans, last = image.fp.tell(), 0, b""
    image.fp.seek(0)
    while block := image.fp.read(2**20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    image.fp.seek(position)
    if scans > MAX_SCANS:
        raise RefusedError("too_large", f"{scans} scans")


def _depth(image: PillowImage, head: bytes) -> tuple[int, bool]:
    """Bits of the values that Pillow will give, and whether they are signed.

    Raises:
        RefusedError: "unsupported_type": Pillow would drop the low bits of the file, or wrap the high ones.
    """
    declared, signed = 8, False
    if image.format == "PNG":
        declared = head[24]  # IHDR: length, type, width, height, then the bit depth (PNG, section 11.2.1)
    elif image.format == "TIFF":
        declared, signed = tiff.bits_per_sample(image), tiff.is_signed(image)
    if image.mode == "F":
        return 32, True
    if declared <= 8:
        # Fewer bits than 8 are spread over 0 to 255 by Pillow, but not the sign of signed bytes.
        if signed:
            raise RefusedError("unsupported_type", f"signed, {declared} bits")
        return 8, False
    if not image.mode.startswith("I"):
        raise RefusedError("unsupported_type", f"colour or alpha of {declared} bits a sample")
    if declared > 16:
        raise RefusedError("unsupported_type", f"grey of {declared} bits")
    return declared, signed
