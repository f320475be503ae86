"""Perceptual hash of an image: 256 signs of its cosine transform, near for re-encodings and far for other images.

The signs of low cosine frequencies survive re-encoding, resizing and linear maps of intensity, and differ in about half of
the bits between two images, also between two chest X-rays (measured in docs/near_duplicates.md). The idea is that of the
DCT hash of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1, with signs
instead of comparisons with the median, so that no coefficient decides about another's bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BITS = 256
BANDS = 16
"""Groups of 16 bits that `near.candidate_pairs` looks images up by; each holds low and high frequencies."""

SIDE = 32  # of the thumbnail that is transformed, px
FLAT = 1e-4  # of the largest coefficient: below it a sign is rounding, not content


def thumbnail(pixels: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32: the whole image, antialiased and stretched to a square, so that a squashed export agrees too.

    Args:
        pixels: (H, W) of any real type, or (H, W, 3) uint8 RGB, of which the luminance is taken.
        size: side in pixels.
    """
    from PIL import Image

    grey = np.asarray(Image.fromarray(pixels).convert("L")) if pixels.ndim == 3 else pixels
    image = Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))


def perceptual_hash(pixels: np.ndarray, sign: int = 1) -> str:
    """256 bits in hex (64 characters) of one image; the count of differing bits is the distance.

    The valid box of the store's square serves as well as the image itself and is cheaper when the image is large.

    Args:
        pixels: (H, W) of any integer or real type, or (H, W, 3) uint8 RGB; not constant.
        sign: -1 where high values are shown dark (MONOCHROME1, an inverse lookup table, a negative slope), else 1.
    """
    small = thumbnail(pixels, SIDE).astype(np.float64)
    coefficients = (_BASIS @ small @ _BASIS.T)[_ROWS, _COLUMNS] * sign
    bits = coefficients > FLAT * np.abs(coefficients).max()
    return np.packbits(bits).tobytes().hex()


def as_words(hashes: Sequence[str]) -> np.ndarray:
    """(N, BANDS) uint16: each hash as its bands.

    Raises:
        ValueError: one has not 64 characters, or others than hexadecimal ones.
    """
    if any(len(value) != BITS // 4 for value in hashes):
        raise ValueError(f"a perceptual hash has {BITS // 4} characters")
    return np.frombuffer(bytes.fromhex("".join(hashes)), ">u2").reshape(-1, BANDS).astype(np.uint16)


def _cosines() -> np.ndarray:
    """(SIDE, SIDE) orthonormal DCT-II."""
    frequency, place = np.arange(SIDE)[:, None], np.arange(SIDE)[None]
    basis = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return basis


def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 256 lowest frequencies but the mean, dealt out to the bands like cards."""
    vertical, horizontal = np.divmod(np.arange(SIDE * SIDE), SIDE)
    lowest = np.lexsort((horizontal, vertical, vertical**2 + horizontal**2))[1 : BITS + 1]
    dealt = lowest.reshape(BITS // BANDS, BANDS).T.ravel()
    return vertical[dealt], horizontal[dealt]


_BASIS = _cosines()
_ROWS, _COLUMNS = _frequencies()
