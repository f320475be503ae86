from __future__ import annotations

import pytest
import torch

from medssl.data.batches import PixelBatch


@pytest.fixture(autouse=True)
def same_images_every_time():
    """Images that tests draw do not depend on which tests ran before."""
    torch.manual_seed(0)


@pytest.fixture
def make_batch():
    """Makes a PixelBatch of pixels (N, C, H, W) or (N, C, D, H, W); keyword arguments replace columns.

    A single value stands for every image. The window is [0, 1], the spacing unknown.
    """

    def make(pixels: torch.Tensor, **columns) -> PixelBatch:
        n, _, *spatial = pixels.shape
        luts, masks = columns.pop("luts", None), columns.pop("masks", None)
        values = {
            "slope": torch.ones(n),
            "intercept": torch.zeros(n),
            "center": torch.full((n,), 0.5),
            "width": torch.ones(n),
            "function": torch.ones(n, dtype=torch.int64),
            "invert": torch.zeros(n, dtype=torch.bool),
            "box": torch.tensor([[0.0] * len(spatial) + [float(side) for side in spatial]]).repeat(n, 1),
            "row": torch.arange(n),
            "spacing": torch.full((n, len(spatial)), float("nan")),
        }
        for name, value in columns.items():
            given = torch.as_tensor(value, dtype=values[name].dtype)
            values[name] = given.expand(values[name].shape).clone()
        return PixelBatch(pixels=pixels.float(), luts=luts, masks=masks, **values)

    return make
