"""The perceptual hash: the same for what shows the same, about half of the bits off for what does not."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from medssl.data.perceptual import BANDS, BITS, as_words, perceptual_hash, thumbnail


def picture(seed: int, shape: tuple[int, int] = (160, 120)) -> np.ndarray:
    """(H, W) uint8: blurred noise, bright in the middle, as images of one body part are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.normal(0, 1, (24, 24)).astype(np.float32))
    noise = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.clip(130 + 25 * noise - 60 * (x**2 + y**2), 0, 255).astype(np.uint8)


def bits_between(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_is_256_bits_in_hex():
    value = perceptual_hash(picture(0))
    assert len(value) == 64
    assert as_words([value]).shape == (1, BANDS)
    assert "".join(f"{word:04x}" for word in as_words([value])[0]) == value


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32])
def test_the_integer_type_changes_nothing(dtype):
    assert perceptual_hash(picture(1).astype(dtype)) == perceptual_hash(picture(1))


def test_a_linear_map_changes_nothing():
    image = picture(1).astype(np.int32)
    assert bits_between(perceptual_hash(image * 13 - 1024), perceptual_hash(image)) == 0


def test_monochrome1_and_its_inverted_export_agree():
    image = picture(2).astype(np.uint16) * 16
    export = ((4095 - image) // 16).astype(np.uint8)
    assert bits_between(perceptual_hash(image, -1), perceptual_hash(export)) <= 8
    assert bits_between(perceptual_hash(image), perceptual_hash(export)) > 240


def test_grey_stored_as_rgb_agrees():
    image = picture(3)
    assert perceptual_hash(np.repeat(image[..., None], 3, axis=2)) == perceptual_hash(image)


def test_a_squashed_or_re_encoded_export_is_near():
    image = picture(4)
    squashed = np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.LANCZOS))
    buffer = io.BytesIO()
    Image.fromarray(squashed).save(buffer, "JPEG", quality=50)
    assert bits_between(perceptual_hash(np.asarray(Image.open(buffer))), perceptual_hash(image)) <= 15


def test_different_images_differ_in_about_half_of_the_bits():
    hashes = [perceptual_hash(picture(seed)) for seed in range(30)]
    between = [bits_between(a, b) for k, a in enumerate(hashes) for b in hashes[:k]]
    assert min(between) > 64
    assert abs(np.mean(between) - BITS / 2) < 24


def test_rounding_decides_no_bit():
    """A picture that varies along one axis only: every other coefficient is zero but for rounding."""
    bits = as_words([perceptual_hash(np.tile(np.arange(200, dtype=np.uint8), (200, 1)))])
    assert np.bitwise_count(bits).sum() <= 16


def test_thumbnails_are_antialiased():
    board = np.indices((128, 128)).sum(0) % 2 * 255
    assert np.ptp(thumbnail(board.astype(np.uint8), 32)) < 16


def test_hashes_of_another_length_are_refused():
    with pytest.raises(ValueError, match="64 characters"):
        as_words(["ab"])


def test_cost_is_small():
    image = np.random.default_rng(0).integers(0, 4096, (512, 512)).astype(np.uint16)
    seconds = []
    for _ in range(20):
        begun = time.perf_counter()
        perceptual_hash(image)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.003  # 0.3 ms on an idle core
