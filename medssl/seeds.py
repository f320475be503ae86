"""Every random stream of medssl is named here: `derive(seed, "views", epoch, step)` and nothing else seeds anything.

A stream is a function of the study's seed and of its name alone, never of what was drawn before, so a resumed run
needs no generator state and one more draw somewhere changes nothing elsewhere.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *name: str | int) -> int:
    """The seed of the stream `name`: 63 bits, the same on every machine and in every version of Python.

    Parts are length-prefixed, so ("ab", "c") and ("a", "bc") are different streams.
    """
    digest = hashlib.sha256()
    for part in (seed, *name):
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def torch_generator(seed: int, *name: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream `name`."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *name))


def numpy_generator(seed: int, *name: str | int) -> np.random.Generator:
    """A NumPy generator at the start of the stream `name`."""
    import numpy as np

    return np.random.default_rng(derive(seed, *name))


def seed_global(seed: int, *name: str | int) -> None:
    """Re-seed Python's, NumPy's and torch's global generators, for layers such as dropout that read them."""
    import random

    import numpy as np
    import torch

    value = derive(seed, *name)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.manual_seed(value)
