"""Arrays out of Pillow's images, a few rows at a time, so that the largest image is copied in small parts only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from medssl.data.formats.items import RefusedError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

GREY_TOLERANCE = 2.0
"""Mean over the image of the largest difference between two channels, in grey levels of 255, up to which a colour file
is read as grey. JPEG's chroma leaves about one; a small coloured mark burned into a radiograph stays below it too."""

_WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
_STRIP = 2**22  # pixels converted at a time


def is_constant(pixels: np.ndarray) -> bool:
    """Whether each channel of (H, W) or (H, W, channels) has one value."""
    planes = pixels.reshape(*pixels.shape[:2], -1)
    return all(planes[..., channel].min() == planes[..., channel].max() for channel in range(planes.shape[2]))


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """The luminance (H, W) uint8 of an RGB image (H, W, 3) uint8 whose content is grey.

    Luminance is that of ITU-R BT.601 in 16-bit fixed point, which leaves equal channels exactly as they are.

    Raises:
        RefusedError: "colour": the channels differ by more than GREY_TOLERANCE on average.
    """
    import numpy as np

    grey = np.empty(pixels.shape[:2], np.uint8)
    difference = 0
    for rows in _strips(*pixels.shape[:2]):
        red, green, blue = (np.ascontiguousarray(pixels[rows, :, channel]) for channel in range(3))
        highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        difference += int((highest - lowest).sum(dtype=np.int64))
        wide = (channel.astype(np.uint32) for channel in (red, green, blue))
        weighted = [weight * channel for weight, channel in zip((19595, 38470, 7471), wide, strict=True)]
        grey[rows] = (sum(weighted) + 0x8000) >> 16
    if difference > GREY_TOLERANCE * grey.size:
        raise RefusedError("colour", f"channels differ by {difference / grey.size:.1f} levels on average")
    return grey


def grey_values(image: PillowImage, signed: bool) -> np.ndarray:
    """Grey values (H, W): uint8, uint16 or int16."""
    import numpy as np

    if image.mode == "F":
        finite = all(np.isfinite(np.asarray(image.crop(box))).all() for _, box in _crops(image))
        raise RefusedError("unsupported_type" if finite else "non_finite", "floating-point pixels")
    kind = np.uint8 if image.mode in ("1", "L") else np.int16 if signed else np.uint16
    key = image.info.get("transparency")  # PNG may declare one grey value transparent (tRNS, PNG section 11.3.2.1)
    pixels = np.empty((image.height, image.width), kind)
    for rows, box in _crops(image):
        strip = image.crop(box)
        pixels[rows] = np.asarray(strip.convert("L") if image.mode == "1" else strip)
        if key is not None and bool((pixels[rows] == key).any()):
            raise RefusedError("alpha", "a grey value is declared transparent")
    return pixels


def colour_values(image: PillowImage) -> np.ndarray:
    """RGB (H, W, 3) uint8 of an image of 8 bits in any mode."""
    import numpy as np

    convert = _conversion(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows, box in _crops(image):
        pixels[rows] = np.asarray(convert(image.crop(box)))
    return pixels


def _conversion(image: PillowImage) -> Callable[[PillowImage], PillowImage]:
    """What makes RGB of a part of `image`; transparent pixels raise RefusedError("alpha")."""
    if image.mode == "LAB":
        from PIL import ImageCms

        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return lambda part: ImageCms.applyTransform(part, transform)
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return lambda part: part.convert("RGB")

    def without_alpha(part: PillowImage) -> PillowImage:
        part = part.convert("RGBA")
        if part.getextrema()[3] != (255, 255):
            raise RefusedError("alpha")
        return part.convert("RGB")

    return without_alpha


def _strips(rows: int, columns: int) -> Iterator[slice]:
    """Blocks of rows of about `_STRIP` pixels: what is converted at a time, so that copies stay small."""
    step = max(1, _STRIP // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _crops(image: PillowImage) -> Iterator[tuple[slice, tuple[int, int, int, int]]]:
    return ((rows, (0, rows.start, image.width, rows.stop)) for rows in _strips(image.height, image.width))
