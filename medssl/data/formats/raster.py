"""PNG, JPEG and TIFF by Pillow: grey at 8 and 16 bits, and colour files whose content is grey."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.data.formats import tiff
from medssl.data.formats.finding import find_files, resolve_inside
from medssl.data.formats.guard import captured_stderr, read_guarded
from medssl.data.formats.items import MAX_PIXELS, Image, Item, RefusedError, Reject

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

GREY_TOLERANCE = 2.0
"""Mean over the image of the largest difference between two channels, in grey levels of 255, up to which a colour file
is read as grey. JPEG's chroma leaves about one; a small coloured mark burned into a radiograph stays below it too."""


class RasterReader:
    """Files whose name or first bytes are those of a PNG, JPEG or TIFF image."""

    name = "raster"

    def find(self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Item]:
        """Every file that is named or begins like one of the three; see `Reader.find`."""
        return [Item(path) for path in find_files(root, include, exclude) if _is_candidate(root, path)]

    def read(self, root: Path, item: Item, tags: Sequence[str] = ()) -> list[Image | Reject]:
        """The image of one file; see `Reader.read`. These formats have no tags: `tags` is ignored."""
        return read_guarded(root, item, lambda path: [_read_file(path)])


def _is_candidate(root: Path, path: str) -> bool:
    if path.lower().endswith(SUFFIXES):
        return True
    try:
        with resolve_inside(root, path).open("rb") as file:
            return file.read(8).startswith(_MAGIC)
    except (RefusedError, OSError):  # listed, so that reading it says what is the matter
        return True


def _read_file(path: Path) -> Image:
    import PIL
    from PIL import Image as Pillow

    with path.open("rb") as file, _strict_pillow():
        head = file.read(32)
        if not head.startswith(_MAGIC):
            raise RefusedError("not_raster")
        file.seek(0)
        size, needed = path.stat().st_size, tiff.directory_end(head)
        try:
            with captured_stderr() as messages, Pillow.open(file, formats=("PNG", "JPEG", "TIFF")) as image:
                if image.format == "TIFF":
                    needed = max(needed, tiff.pixels_end(image))
                found = _load(image, head)
            if tiff.has_error(messages):
                raise RefusedError("undecodable", "damaged TIFF")
        except (RefusedError, MemoryError):
            raise
        except Pillow.DecompressionBombError as error:
            raise RefusedError("too_large") from error
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
            raise RefusedError(*_why_not_loaded(error, is_short=needed > size)) from error
    if found.pixels.min() == found.pixels.max():
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


def _load(image: PillowImage, head: bytes) -> Image:
    from PIL import ImageOps

    _check_size(image)
    depth, signed = _depth(image, head)
    inverted = image.format == "TIFF" and tiff.shows_white_as_zero(image)
    syntax = "JPEG" if image.format == "MPO" else image.format or ""
    image.load()
    # Pillow turns TIFF by its Orientation while loading and drops the tag, so that nothing is turned twice.
    pixels = _grey(ImageOps.exif_transpose(image), depth, signed)
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
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise RefusedError("multi_frame", f"{frames} pages")


def _depth(image: PillowImage, head: bytes) -> tuple[int, bool]:
    """Bits of the grey values that Pillow will give, and whether they are signed.

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
    if declared > 16 or not image.mode.startswith("I"):
        raise RefusedError("unsupported_type", f"{declared} bits a sample, mode {image.mode}")
    return declared, signed


def _grey(image: PillowImage, depth: int, signed: bool) -> np.ndarray:
    """Grey values (H, W): uint8, uint16 or int16."""
    import numpy as np

    if image.mode == "F":
        finite = bool(np.isfinite(np.asarray(image)).all())
        raise RefusedError("unsupported_type" if finite else "non_finite", "floating-point pixels")
    if image.mode in ("1", "L"):
        _check_key_colour(image)
        return np.array(image.convert("L"))
    if image.mode.startswith("I"):
        _check_key_colour(image)
        return np.array(image).astype(np.int16 if signed else np.uint16)
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3] != (255, 255):
            raise RefusedError("alpha")
    image = image.convert("RGB")
    red, green, blue = (np.asarray(channel) for channel in image.split())
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    difference = float((highest - lowest).mean())
    if difference > GREY_TOLERANCE:
        raise RefusedError("colour", f"channels differ by {difference:.1f} levels on average")
    # Luminance of ITU-R BT.601, which leaves equal channels exactly as they are.
    return np.array(image.convert("L"))


def _check_key_colour(image: PillowImage) -> None:
    """PNG may declare one grey value transparent (tRNS, PNG section 11.3.2.1)."""
    import numpy as np

    key = image.info.get("transparency")
    if key is not None and bool((np.asarray(image.convert("L") if image.mode == "1" else image) == key).any()):
        raise RefusedError("alpha", "a grey value is declared transparent")
