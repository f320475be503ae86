"""What an intensity transform is: its settings, how it draws, how it applies what was drawn."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from medssl.augment.ranges import Share
from medssl.strict import StrictModel

Parameters = dict[str, Tensor]
Stage = Literal["units", "display"]


class Transform(StrictModel, ABC):
    """Base of the intensity transforms; the fields of each are what it is drawn from, and stand in study files.

    A transform draws for n samples at once on the CPU and changes a batch at once on its device. What it draws is a function
    of the generator alone, and `apply` one of its arguments alone.

    Attributes:
        stage: `display`: images in [0, 1] come in and [0, 1] goes out. `units`: images stand before the window, 0 and 1 being
            its ends; values beyond them are kept, so that what a scanner does happens before what a display does.
        colour: needs three channels; on grey images it does nothing.
    """

    stage: ClassVar[Stage] = "display"
    colour: ClassVar[bool] = False

    probability: Share = Field(default=1.0, description="Probability that a view is changed at all")

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Parameters:
        """Parameters of n samples: CPU tensors whose first dimension is n."""

    @abstractmethod
    def apply(self, images: Tensor, drawn: Parameters) -> Tensor:
        """Changed images (N, C, ...) of the same shape; may change `images` in place."""

    def sample(self, n: int, generator: torch.Generator) -> Parameters:
        """What `draw` gives, and `on` (n,) bool: which samples are changed."""
        on = torch.rand(n, generator=generator) < self.probability
        return {"on": on, **self.draw(n, generator)}

    def describe(self, drawn: Parameters, i: int) -> str:
        """The draws of sample i in a few characters, for captions."""
        scalars = {name: value[i] for name, value in drawn.items() if name not in ("on", "seed") and value[i].numel() == 1}
        return " ".join(f"{name} {float(value):.2g}" for name, value in scalars.items())


@functools.lru_cache(maxsize=64)
def constant(values: tuple, device: torch.device) -> Tensor:
    """A table of numbers on a device, copied there once: each copy to a GPU waits for all that it still has to do."""
    return torch.tensor(values, device=device)


def draw_seeds(n: int, generator: torch.Generator) -> Tensor:
    """(n,) int64 >= 0: seeds of pixel noise, see `medssl.augment.noise`."""
    return torch.randint(0, 2**63 - 1, (n,), generator=generator)
