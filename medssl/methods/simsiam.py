"""SimSiam: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021 (2011.10566)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medssl.methods.base import Method, Output, ParameterGroup, ViewSpec, trainable
from medssl.methods.collapse import std_sqrt_d
from medssl.models.encoder import Encoder
from medssl.models.heads import predictor, projector
from medssl.strict import StrictModel


class SimSiamSettings(StrictModel):
    """The method's own settings; batch size, optimiser and epochs are the study's."""

    name: Literal["simsiam"] = "simsiam"
    projector_layers: Literal[2, 3] = Field(default=3, description="2 as in the paper's appendix D (small images)")
    projector_dim: int = Field(default=2048, ge=2, description="d, the width of z")
    projector_hidden: int = Field(default=2048, ge=2)
    predictor_hidden: int | None = Field(default=None, ge=1, description="null: d / 4, the paper's bottleneck")
    stop_gradient: bool = Field(default=True, description="false collapses (paper, figure 2): for demonstrations")
    predictor_lr: Literal["constant", "cosine"] = Field(
        default="constant", description="constant: 68.1 against 67.7 with cosine (paper, table 1)"
    )
    encoder_lr_scale: float = Field(
        default=1.0, gt=0, le=1, description="Below 1, a pretrained encoder learns more slowly than its fresh heads"
    )


class SimSiam(Method):
    """Two views, one network, a predictor on one side and a stop-gradient on the other."""

    def __init__(self, settings: SimSiamSettings, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.settings = settings
        dim = settings.projector_dim
        self.projector = projector(encoder.feature_dim, settings.projector_hidden, dim, settings.projector_layers)
        self.predictor = predictor(dim, settings.predictor_hidden or max(1, dim // 4))

    def view_spec(self) -> ViewSpec:
        return ViewSpec(views=2)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Weight decay on all parameters, BN included; the predictor's rate does not decay (paper, section 4.1 and table 1)."""
        groups = [
            ("encoder", [self.encoder], self.settings.encoder_lr_scale, "cosine"),
            ("projector", [self.projector], 1.0, "cosine"),
            ("predictor", [self.predictor], 1.0, self.settings.predictor_lr),
        ]
        return [
            ParameterGroup(name=name, params=trainable(modules), lr_scale=scale, schedule=schedule, weight_decay=True)
            for name, modules, scale, schedule in groups
        ]

    def forward(self, views: list[Tensor]) -> Output:
        """L = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2 (paper, equation 4), in [-1, 1].

        Each view is a pass of its own, so that BN sees one view at a time, as in the paper.

        Raises:
            ValueError: not two views.
        """
        first, second = views
        z1, z2 = self.projector(self.encoder(first)), self.projector(self.encoder(second))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        t1, t2 = (z1.detach(), z2.detach()) if self.settings.stop_gradient else (z1, z2)
        loss = (negative_cosine(p1, t2) + negative_cosine(p2, t1)) / 2
        z, p = torch.cat([z1, z2]).detach().float(), torch.cat([p1, p2]).detach().float()
        logs = {
            "loss": loss.detach(),
            "z_std_sqrt_d": std_sqrt_d(z),
            # Where the predictor stands on both sides of the loss, p collapses before z does (2203.16262).
            "p_std_sqrt_d": std_sqrt_d(p),
            "p_norm": p.norm(dim=1).mean(),
        }
        return Output(loss, z, p, logs)


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -<p / |p|, z / |z|>, mean over rows; scalar in [-1, 1] (paper, equation 1).

    In float32 even under autocast: near -1 bfloat16 has steps of 0.004.
    """
    with torch.autocast(p.device.type, enabled=False):
        p, z = (x if x.dtype == torch.float64 else x.float() for x in (p, z))
        return -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(dim=1).mean()
