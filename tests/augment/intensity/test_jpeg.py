from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from medssl.augment.intensity.jpeg import Jpeg
from medssl.seeds import torch_generator


def picture(channels: int, side: int = 64) -> np.ndarray:
    """Smooth shapes, an edge and a little noise: (side, side, channels) uint8."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    planes = [0.5 + 0.3 * np.sin(5 * x + 2 * y + c) + 0.2 * (x + y > 1) for c in range(channels)]
    return (np.stack(planes, -1) * 200 + generator.normal(0, 4, (side, side, channels)) + 20).clip(0, 255).astype(np.uint8)


def pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file)).reshape(pixels.shape).astype(float)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [30, 50, 75, 95])
@pytest.mark.parametrize("side", [64, 43])
def test_agrees_with_pillow_within_a_mean_of_0_7_and_at_most_12_grey_levels(channels, quality, side):
    """Pillow's cosine transform is one of integers: single coefficients round the other way, which moves a block by a few levels."""
    pixels = picture(channels, side)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    out = Jpeg().apply(images, {"quality": torch.tensor([float(quality)])})
    ours = (out * 255)[0].permute(1, 2, 0).numpy()
    expected = pillow(pixels, quality)
    difference = np.abs(ours - expected)
    assert difference.mean() < 0.7
    assert difference.max() <= 12
    assert np.abs(expected - pixels).mean() > 2 * difference.mean(), "compression itself changes more than the two differ"


def test_lower_quality_loses_more():
    images = torch.from_numpy(picture(1)).permute(2, 0, 1)[None].repeat(4, 1, 1, 1) / 255
    out = Jpeg().apply(images.clone(), {"quality": torch.tensor([100.0, 90.0, 50.0, 5.0])})
    lost = (out - images).abs().flatten(1).mean(1)
    assert lost[0] < 1 / 255
    assert lost.diff().gt(0).all()


def test_qualities_are_whole_numbers_each_as_likely():
    drawn = Jpeg(quality=[60, 69]).sample(10_000, torch_generator(0))["quality"]
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == list(range(60, 70))
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_flat_grey_of_a_level_of_8_bits_is_kept():
    images = torch.full((1, 1, 20, 20), 100 / 255)
    torch.testing.assert_close(Jpeg().apply(images.clone(), {"quality": torch.tensor([95.0])}), images, atol=1 / 255, rtol=0)
