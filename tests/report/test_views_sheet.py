from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.batches import PixelBatch
from medssl.report.views_sheet import views_sheet


def batch_of(pixels: torch.Tensor) -> PixelBatch:
    n, spatial = len(pixels), list(pixels.shape[2:])
    return PixelBatch(
        pixels=pixels,
        slope=torch.ones(n),
        intercept=torch.zeros(n),
        center=torch.full((n,), 0.5),
        width=torch.ones(n),
        function=torch.ones(n, dtype=torch.int64),
        invert=torch.zeros(n, dtype=torch.bool),
        box=torch.tensor([[0.0] * len(spatial) + spatial]).repeat(n, 1),
        row=torch.arange(n),
        spacing=torch.ones(n, len(spatial)),
    )


def drawn(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.float32) / 255


def test_a_row_for_each_image_and_a_column_for_each_view():
    policy = build_policy(policy_settings({"policy": "plain"}))
    pixels = torch.zeros(2, 1, 32, 32)
    pixels[1] = 0.75
    sheet = drawn(views_sheet(batch_of(pixels), policy, 32, 0, 3, tile=64))
    assert sheet.shape[1] == 4 * (64 + 8) + 8
    middles = [8 + 72 * column + 32 for column in range(4)]
    assert [sheet[40, x] for x in middles] == [0.0] * 4
    second = sheet.shape[0] // 2 + 36
    assert [sheet[second, x] for x in middles] == pytest.approx([0.75] * 4, abs=0.01)


def test_of_a_volume_the_middle_slice_is_shown_front_above():
    """The bright half lies towards the front and in the middle slice only; voxels run to the right, front and head."""
    pixels = torch.zeros(1, 1, 8, 16, 16)
    pixels[:, :, 4, 8:] = 1
    policy = build_policy(policy_settings({"policy": "plain_volume"}))
    sheet = drawn(views_sheet(batch_of(pixels), policy, 16, 0, 1, tile=64))
    assert sheet[8 + 16, 40] == 1
    assert sheet[8 + 48, 40] == 0


def test_a_seed_draws_the_same_sheet_again():
    policy = build_policy(policy_settings({"policy": "chest_xray"}))
    batch = batch_of(torch.rand(2, 1, 32, 32))
    assert views_sheet(batch, policy, 24, 3, 2) == views_sheet(batch, policy, 24, 3, 2)
    assert views_sheet(batch, policy, 24, 3, 2) != views_sheet(batch, policy, 24, 4, 2)
