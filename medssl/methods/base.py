"""What a method of self-supervised pretraining is: the views it asks for, its parameter groups, its loss, its paper's recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypedDict

from torch import Tensor, nn

from medssl.models.encoder import Encoder
from medssl.strict import StrictModel
from medssl.training.recipe import Recipe


@dataclass(frozen=True)
class View:
    """One random view of each sample.

    Attributes:
        related: it shows a related image (`positive_pairs` of the data card), or the sample itself where it has none.
        size: its side, share of the encoder's input size.
        changes: keys of the study's `pretrain.views` that this view has otherwise.
    """

    related: bool = False
    size: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewSpec:
    """What a method asks of each sample."""

    views: tuple[View, ...]


@dataclass
class Batch:
    """What a method learns from; row i of everything belongs to sample i.

    Attributes:
        views: a tensor (N, C, side, side) a view of `ViewSpec`, float32 in [0, 1].
        related: (N,) bool on the same device: the related views show another image; None where none were asked for.
        text: (N, L) int64: tokens of each sample's report, for methods of images and text; None where there are none.
    """

    views: list[Tensor]
    related: Tensor | None = None
    text: Tensor | None = None


@dataclass
class Output:
    """What one step gives. Where several ranks work on a batch, all of it is of this rank's rows.

    Attributes:
        loss: scalar float32, to be minimised. Its mean over ranks is the loss of the global batch; each rank's may be that loss already.
        z: (V, N, d) float32, detached: projections of V views as in training (batch statistics), for the collapse monitor.
        features: (V, N, D) float32, detached: the backbone's features of the same views, as in training.
        p: (V, N, d) float32, detached: predictions, for methods with a predictor; V may be another number.
        logs: detached scalars by name, besides the loss; their means over ranks are what is logged.
    """

    loss: Tensor
    z: Tensor
    features: Tensor
    p: Tensor | None = None
    logs: dict[str, Tensor] = field(default_factory=dict)


class ParameterGroup(TypedDict):
    """Parameters that share an optimiser's settings."""

    name: str
    params: list[nn.Parameter]
    lr_scale: float  # times the learning rate of the study
    schedule: Literal["cosine", "constant"]
    weight_decay: bool  # whether the study's weight decay applies
    adaptation: bool  # whether LARS scales each tensor's step by its norm


class Method(nn.Module, ABC):
    """Base of all methods. A method knows networks and views; it knows nothing of files and optimisers.

    Several ranks may share a batch: rank r has the r-th of equal parts of it, and the gradients are averaged over ranks. A loss that
    is a mean over rows needs nothing for that. One in which rows meet other rows takes those of all ranks, by
    `medssl.training.collectives`.

    Attributes:
        settings: as in the study file, with `name`.
        recipe: the optimiser, rates and schedule of the method's paper.
        pairs: whether the method asks for related images.
        sync_batch_norm: whether BN takes its statistics over the batch of all ranks, as one process would.
    """

    recipe: ClassVar[Recipe]
    pairs: ClassVar[bool] = False
    sync_batch_norm: ClassVar[bool] = True

    def __init__(self, settings: StrictModel, encoder: Encoder) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder

    @property
    def dim(self) -> int:
        """d, the width of z: `projector_dim` of the settings, where a method says nothing else."""
        return self.settings.projector_dim

    def view_spec(self) -> ViewSpec:
        """What the method asks of each sample: two views, where a method says nothing else."""
        return ViewSpec((View(), View()))

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trainable parameter, in exactly one group."""

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """The loss of a batch with the views of `view_spec()`."""

    def cautions(self, images: int, batch: int) -> list[str]:
        """What does not go well together with so many images in all and in each pass of all ranks, a sentence each, for people."""
        return []

    def before_step(self, step: int, total: int) -> None:
        """Called before the forward pass of step 0 <= step < total."""

    def after_backward(self, step: int, total: int) -> None:
        """Called between the backward pass, whose gradients are then those of all ranks, and the optimiser's step.

        Such as to keep parameters from learning for a while: `requires_grad` must stay as it was, since ranks wait for each other's
        gradient of every parameter that had it at the start.
        """

    def after_step(self, step: int, total: int) -> None:
        """Called after the optimiser's step, such as for the average of a teacher's weights."""


def group(
    name: str, modules: Iterable[nn.Module], *, lr_scale: float = 1.0, schedule: Literal["cosine", "constant"] = "cosine"
) -> list[ParameterGroup]:
    """One group of all trainable parameters of `modules`; none where there are no such parameters."""
    return _group(name, trainable(modules), lr_scale, schedule, excluded=False)


def groups_without_bias_and_norm(name: str, modules: Iterable[nn.Module], *, lr_scale: float = 1.0) -> list[ParameterGroup]:
    """Two groups: weights, and apart from them biases and normalisation's parameters (all that have one dimension or none),
    which get neither weight decay nor LARS's adaptation, as the released code of SimCLR and of BYOL does."""
    parameters = trainable(modules)
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    rest = [parameter for parameter in parameters if parameter.ndim <= 1]
    return _group(name, weights, lr_scale, "cosine", excluded=False) + _group(
        f"{name}_bias_and_norm", rest, lr_scale, "cosine", excluded=True
    )


def _group(
    name: str, params: list[nn.Parameter], lr_scale: float, schedule: Literal["cosine", "constant"], *, excluded: bool
) -> list[ParameterGroup]:
    if not params:
        return []
    keep = not excluded
    return [ParameterGroup(name=name, params=params, lr_scale=lr_scale, schedule=schedule, weight_decay=keep, adaptation=keep)]


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of modules that require a gradient."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
