"""What a method of self-supervised pretraining is: the views it asks for, its parameter groups, its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from torch import Tensor, nn

from medssl.models.encoder import Encoder


@dataclass(frozen=True)
class ViewSpec:
    """What a method asks of each sample."""

    views: int  # random views of each sample


@dataclass
class Output:
    """What one step gives.

    Attributes:
        loss: scalar float32, to be minimised.
        z: (views x N, d) float32, detached: projections as in training (batch statistics), for the collapse monitor.
        p: (views x N, d) float32, detached: predictions, for methods with a predictor.
        logs: detached scalars by name.
    """

    loss: Tensor
    z: Tensor | None = None
    p: Tensor | None = None
    logs: dict[str, Tensor] = field(default_factory=dict)


class ParameterGroup(TypedDict):
    """Parameters that share an optimiser's settings."""

    name: str
    params: list[nn.Parameter]
    lr_scale: float  # times the learning rate of the study
    schedule: Literal["cosine", "constant"]
    weight_decay: bool  # whether the study's weight decay applies


class Method(nn.Module, ABC):
    """Base of all methods. A method knows networks and views; it knows nothing of files, ranks and optimisers."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def view_spec(self) -> ViewSpec:
        """What the method asks of each sample."""

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trainable parameter, in exactly one group."""

    @abstractmethod
    def forward(self, views: list[Tensor]) -> Output:
        """The loss of a batch: `view_spec().views` tensors (N, C, H, W), float32 in [0, 1], row i of each from sample i."""

    def before_step(self, step: int, total: int) -> None:
        """Called before the forward pass of step 0 <= step < total."""

    def after_step(self, step: int, total: int) -> None:
        """Called after the optimiser's step, such as for the average of a teacher's weights."""


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of modules that require a gradient."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
