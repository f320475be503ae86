"""Barlow Twins: Zbontar et al., Self-Supervised Learning via Redundancy Reduction, ICML 2021 (2103.03230)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medssl.methods.base import Batch, Method, Output, ParameterGroup, groups_without_bias_and_norm
from medssl.methods.settings import MethodSettings
from medssl.models.encoder import Encoder
from medssl.models.heads import mlp
from medssl.training.collectives import sum_over_ranks, world_size
from medssl.training.recipe import Recipe
from medssl.training.sync_batch_norm import mean_and_variance, normalised

# Biases and BN learn with base rate 0.0048, weights with 0.2 (section 2.2, "Optimization").
BIAS_AND_NORM_LR_SCALE = 0.0048 / 0.2


class BarlowTwinsSettings(MethodSettings):
    """The method's own settings; the defaults are the paper's."""

    name: Literal["barlow_twins"] = "barlow_twins"
    projector_widths: list[Annotated[int, Field(ge=2)]] = Field(
        default=[8192, 8192, 8192],
        min_length=1,
        description="Widths of the projector's layers; the last is d. The paper's need 604 MB of weights at 2048 features",
    )
    redundancy_weight: float = Field(
        default=0.0051, ge=0, description="lambda, of the terms off the diagonal; as in the released code"
    )


class BarlowTwins(Method):
    """The correlation of each channel between two views should be 1, that of different channels 0."""

    # Section 2.2; the weight decay is the released code's.
    recipe = Recipe(name="lars", base_lr=0.2, weight_decay=1e-6, warmup_epochs=10, final_lr=0.001)

    def __init__(self, settings: BarlowTwinsSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        # The BN of the loss follows, which takes a bias of the output away.
        self.projector = mlp([encoder.feature_dim, *settings.projector_widths], output_bias=False)

    @property
    def dim(self) -> int:
        return self.settings.projector_widths[-1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Biases and BN have a rate of their own, and neither weight decay nor LARS's adaptation (section 2.2)."""
        groups = [
            *groups_without_bias_and_norm("encoder", [self.encoder], lr_scale=self.settings.encoder_lr_scale),
            *groups_without_bias_and_norm("projector", [self.projector]),
        ]
        for one in groups:
            if not one["adaptation"]:
                one["lr_scale"] *= BIAS_AND_NORM_LR_SCALE
        return groups

    def forward(self, batch: Batch) -> Output:
        """Equation 1, >= 0. Each view is a pass of its own.

        z is what the projector gives, before the loss's BN: that BN gives every channel the same spread, also where all
        images are mapped to nearly one point, so the collapse monitor would see nothing behind it.

        Raises:
            ValueError: not two views.
        """
        first, second = batch.views
        features = [self.encoder(view) for view in (first, second)]
        z = [self.projector(one) for one in features]
        invariance, redundancy = correlation_terms(*z)
        loss = invariance + self.settings.redundancy_weight * redundancy
        z, features = (torch.stack(x).detach().float() for x in (z, features))
        return Output(loss, z, features, logs={"invariance": invariance.detach(), "redundancy": redundancy.detach()})


def correlation_terms(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of (1 - c_ii)^2 and sum of c_ij^2 over i != j, of the cross-correlation c of two views over the batch (equations 1, 2).

    The batch is that of all ranks, and so are both sums: each rank has the same.

    Args:
        z1, z2: (n, d), n >= 2; each channel is normalised to mean 0 and variance 1 over the batch here.

    Returns:
        Scalars float32, >= 0, also under autocast: off the diagonal are many small numbers.
    """
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (_normalised(z.float()) for z in (z1, z2))
        # One matrix (d, d) goes round rather than the rows of all ranks, and once: every rank makes the same loss of it.
        c = sum_over_ranks(z1.T @ z2, one_loss=True) / (len(z1) * world_size())
        diagonal = c.diagonal()
        return (1 - diagonal).square().sum(), c.square().sum() - diagonal.square().sum()


def _normalised(z: Tensor) -> Tensor:
    """With the biased variance of all ranks' rows, and an epsilon for channels that do not vary."""
    if world_size() == 1:
        return F.batch_norm(z, None, None, training=True)
    mean, variance, _ = mean_and_variance(z)
    return normalised(z, mean, variance, eps=1e-5)
