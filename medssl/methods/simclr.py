"""SimCLR: Chen et al., A Simple Framework for Contrastive Learning, ICML 2020 (2002.05709); v2's head is of 2006.10029."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from medssl.methods.base import Batch, Method, Output, ParameterGroup, groups_without_bias_and_norm
from medssl.methods.settings import MethodSettings
from medssl.models.encoder import Encoder
from medssl.models.heads import mlp
from medssl.training.collectives import gather_rows, own_rows
from medssl.training.recipe import Recipe


class SimCLRSettings(MethodSettings):
    """The method's own settings; the defaults are the paper's."""

    name: Literal["simclr"] = "simclr"
    projector_layers: Literal[2, 3] = Field(default=2, description="2: SimCLR; 3: SimCLR v2")
    projector_hidden: int | Literal["features"] = Field(
        default=2048, description="Hidden width; features: as wide as the backbone's features, as in the released code"
    )
    projector_dim: int = Field(default=128, ge=2, description="d, the width of z")
    temperature: float = Field(
        default=0.1, gt=0, description="tau of the softmax; the released code takes 0.5 for small images (CIFAR-10)"
    )

    @model_validator(mode="after")
    def _hidden_is_a_width(self) -> SimCLRSettings:
        if self.projector_hidden != "features" and self.projector_hidden < 2:
            raise ValueError(f"projector_hidden is {self.projector_hidden}; allowed: features, or at least 2")
        return self


class SimCLR(Method):
    """Of all views of a batch, a view must find the other view of its own image.

    The negatives are the batch of all ranks, so its size matters, and a batch that is worked on in parts has only each part's
    negatives.
    """

    recipe = Recipe(name="lars", base_lr=0.3, weight_decay=1e-6, warmup_epochs=10)  # section 2.3, "Default setting"

    def __init__(self, settings: SimCLRSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        width = encoder.feature_dim
        hidden = width if settings.projector_hidden == "features" else settings.projector_hidden
        # The paper names no BN in the head; the released code has one after each layer, the last with a scale and no shift.
        self.projector = mlp([width, *[hidden] * (settings.projector_layers - 1), settings.projector_dim], output_bn="scale")

    def parameter_groups(self) -> list[ParameterGroup]:
        """Biases and BN get neither weight decay nor LARS's adaptation, as in the released code."""
        return [
            *groups_without_bias_and_norm("encoder", [self.encoder], lr_scale=self.settings.encoder_lr_scale),
            *groups_without_bias_and_norm("projector", [self.projector]),
        ]

    def forward(self, batch: Batch) -> Output:
        """NT-Xent of both views (equation 1). They pass the network together, so that BN sees 2N images, as in the released code.

        Raises:
            ValueError: not two views.
        """
        first, second = batch.views
        features = self.encoder(torch.cat([first, second]))
        z = self.projector(features)
        loss, top1 = nt_xent(*z.chunk(2), self.settings.temperature)
        z, features = (torch.stack(x.detach().float().chunk(2)) for x in (z, features))
        return Output(loss, z, features, logs={"contrast_top1": top1})


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross entropy (equation 1): mean over this rank's 2n views, each with 2(N - 1) negatives.

    N is the number of images on all ranks, where a view must find the other one of its image. The released code adds the means of
    both directions, which is twice as much; LARS's adaptation takes such a factor away.

    Args:
        z1, z2: (n, d), normalised here.

    Returns:
        Scalars float32: the loss, >= 0, and the share of views whose nearest other view is of the same image.
    """
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (F.normalize(z.float(), dim=1) for z in (z1, z2))
        views = gather_rows(torch.stack([z1, z2], dim=1))  # (N, 2, d)
        logits = torch.cat([z1, z2]) @ views.transpose(0, 1).flatten(0, 1).T / temperature  # (2n, 2N)
        first = torch.arange(len(views), device=z1.device)[own_rows(len(z1))]
        own, target = torch.cat([first, first + len(views)]), torch.cat([first + len(views), first])
        logits[torch.arange(len(own), device=z1.device), own] = -torch.inf  # a view is no negative of its own
        return F.cross_entropy(logits, target), (logits.detach().argmax(dim=1) == target).float().mean()
