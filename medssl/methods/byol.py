"""BYOL: Grill et al., Bootstrap Your Own Latent, NeurIPS 2020 (2006.07733)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from medssl.methods.base import Batch, Method, Output, ParameterGroup, groups_without_bias_and_norm
from medssl.methods.settings import MethodSettings
from medssl.methods.simsiam import negative_cosine
from medssl.methods.teacher import Teacher
from medssl.models.encoder import Encoder
from medssl.models.heads import mlp
from medssl.training.recipe import Recipe


class BYOLSettings(MethodSettings):
    """The method's own settings; the defaults are those of 300 epochs."""

    name: Literal["byol"] = "byol"
    projector_hidden: int = Field(default=4096, ge=2, description="Hidden width of the projector (section 3.3)")
    projector_dim: int = Field(default=256, ge=2, description="d, the width of z and of the predictions (section 3.3)")
    predictor_hidden: int = Field(default=4096, ge=2, description="Hidden width of the predictor (section 3.3)")
    momentum: float = Field(
        default=0.99,
        ge=0,
        le=1,
        description="tau of the target network at the start; the released presets: 0.97 for 40 epochs, 0.99 for 100 and 300, "
        "0.996 for 1000",
    )
    momentum_schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="cosine: tau rises to 1 at the end of training (section 3.3); constant: it stays"
    )


class BYOL(Method):
    """The online network predicts, from one view, how its own moving average projects another view.

    The rates are the released code's preset of 300 epochs (100 epochs: base_lr 0.45; 1000: base_lr 0.2, weight_decay 1.5e-6).
    That code draws the target network anew; here it is a copy of the online one.
    """

    recipe = Recipe(name="lars", base_lr=0.3, weight_decay=1e-6, warmup_epochs=10)

    def __init__(self, settings: BYOLSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        # No BN on the output (section 3.3), and no bias either, as in the released code.
        dim = settings.projector_dim
        self.projector = mlp([encoder.feature_dim, settings.projector_hidden, dim], output_bias=False)
        self.predictor = mlp([dim, settings.predictor_hidden, dim], output_bias=False)
        self.teacher = Teacher(encoder, self.projector)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Biases and BN get neither weight decay nor LARS's adaptation (section 3.3)."""
        return [
            *groups_without_bias_and_norm("encoder", [self.encoder], lr_scale=self.settings.encoder_lr_scale),
            *groups_without_bias_and_norm("projector", [self.projector]),
            *groups_without_bias_and_norm("predictor", [self.predictor]),
        ]

    def forward(self, batch: Batch) -> Output:
        """L + L~ (equation 2 and the sentence after it): both directions are added, so the range is [0, 8].

        Raises:
            ValueError: not two views.
        """
        first, second = batch.views
        features, z, p = zip(*(self._online(view) for view in (first, second)), strict=True)
        targets = [self.teacher(view)[1] for view in (first, second)]
        loss = distance(p[0], targets[1]) + distance(p[1], targets[0])
        features, z, p = (torch.stack(part).detach().float() for part in (features, z, p))
        # A prediction of no length would make the cosine's gradient explode.
        return Output(loss, z, features, p, {"p_norm": p.norm(dim=-1).mean()})

    def _online(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(view)
        z = self.projector(features)
        return features, z, self.predictor(z)

    def momentum(self, step: int, total: int) -> float:
        """tau = 1 - (1 - tau_base) (cos(pi step / total) + 1) / 2 (section 3.3), or tau_base."""
        base = self.settings.momentum
        if self.settings.momentum_schedule == "constant":
            return base
        return 1 - (1 - base) * (math.cos(math.pi * step / total) + 1) / 2

    def after_step(self, step: int, total: int) -> None:
        """The target network follows the online one (equation 1)."""
        self.teacher.update([self.encoder, self.projector], self.momentum(step, total))


def distance(p: Tensor, z: Tensor) -> Tensor:
    """|p / |p| - z / |z||^2 = 2 - 2 cos(p, z), mean over rows; scalar in [0, 4], float32 (equation 2)."""
    return 2 + 2 * negative_cosine(p, z)
