from __future__ import annotations

import pytest
import torch

from medssl.data.batches import PixelBatch


@pytest.fixture
def make_batch():
    """Makes a PixelBatch of pixels (N, 1, H, W); keyword arguments replace columns, a single value stands for every image."""

    def make(pixels: torch.Tensor, **columns) -> PixelBatch:
        n, _, height, width = pixels.shape
        values = {
            "slope": torch.ones(n),
            "intercept": torch.zeros(n),
            "center": torch.full((n,), 0.5),
            "width": torch.ones(n),
            "function": torch.ones(n, dtype=torch.int64),
            "invert": torch.zeros(n, dtype=torch.bool),
            "box": torch.tensor([[0.0, 0.0, height, width]]).repeat(n, 1),
            "row": torch.arange(n),
        }
        for name, value in columns.items():
            given = torch.as_tensor(value, dtype=values[name].dtype)
            values[name] = given.expand(values[name].shape).clone()
        return PixelBatch(pixels=pixels.float(), **values)

    return make
