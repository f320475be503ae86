"""The queue of former projections: first in, first out (1911.05722, section 3.2; 2006.09882, section 3.1, "Working with small batches")."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The last K vectors that were pushed. All of its state is in buffers, so a resumed run goes on with the same queue.

    Attributes:
        rows: (K, d) float32; which row is the oldest is said by `pushed`.
        pushed: scalar int64, vectors pushed so far.
    """

    def __init__(self, size: int, dim: int, *, random: bool = False) -> None:
        """`random`: start with random unit vectors from torch's global CPU generator instead of zeros."""
        super().__init__()
        rows = F.normalize(torch.randn(size, dim), dim=1) if random else torch.zeros(size, dim)
        self.register_buffer("rows", rows)
        self.register_buffer("pushed", torch.tensor(0))
        self._full = False

    @property
    def full(self) -> bool:
        """Whether every row has been pushed; waits for the device until it is so, then no more."""
        self._full = self._full or bool(self.pushed >= len(self.rows))
        return self._full

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._full = False  # what was loaded may be younger

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Let `vectors` (N, d) take the place of the N oldest rows.

        Raises:
            ValueError: N is above K.
        """
        if len(vectors) > len(self.rows):
            raise ValueError(f"expected at most {len(self.rows)} vectors, got {len(vectors)}")
        # Computed on the device: reading the counter would wait for the GPU at each step.
        place = (self.pushed + torch.arange(len(vectors), device=self.rows.device)) % len(self.rows)
        self.rows[place] = vectors.to(self.rows.dtype)
        self.pushed += len(vectors)
