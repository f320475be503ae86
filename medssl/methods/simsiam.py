"""SimSiam: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021 (2011.10566)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.methods.base import Batch, Method, Output, ParameterGroup, View, ViewSpec, group
from medssl.methods.settings import MethodSettings
from medssl.models.encoder import Encoder
from medssl.models.heads import mlp
from medssl.training.recipe import Recipe


class SimSiamSettings(MethodSettings):
    """The method's own settings; the defaults are the paper's, the others are its ablations."""

    name: Literal["simsiam"] = "simsiam"
    projector_layers: Literal[2, 3] = Field(default=3, description="2 as in the paper's appendix D (small images)")
    projector_dim: int = Field(default=2048, ge=2, description="d, the width of z (section 4.6)")
    projector_hidden: int | Literal["features"] = Field(
        default=2048, description="features: as wide as the backbone's features, as in the released code"
    )
    predictor: Literal["learned", "none", "fixed_random", "bias_only"] = Field(
        default="learned", description="Others than learned: table 1 and 2203.16262, for demonstrations"
    )
    predictor_hidden: int | None = Field(default=None, ge=1, description="null: d / 4, the paper's bottleneck")
    predictor_lr: Literal["constant", "cosine"] = Field(
        default="constant", description="constant: 68.1 against 67.7 with cosine (table 1)"
    )
    stop_gradient: bool = Field(default=True, description="false collapses (figure 2): for demonstrations")
    batch_norm: Literal["default", "none", "hidden", "all"] = Field(
        default="default",
        description="BN in the heads (table 3). none; hidden: of hidden layers; default: of the projector's output too; "
        "all: of the predictor's output too",
    )
    loss: Literal["symmetric", "asymmetric", "asymmetric_two_pairs"] = Field(
        default="symmetric", description="Section 4.6: 68.1, 64.8 and 67.3"
    )
    similarity: Literal["cosine", "cross_entropy"] = Field(default="cosine", description="Section 4.5: 68.1 and 63.2")

    @model_validator(mode="after")
    def _hidden_is_a_width(self) -> SimSiamSettings:
        if self.projector_hidden != "features" and self.projector_hidden < 2:
            raise ValueError(f"projector_hidden is {self.projector_hidden}; allowed: features, or at least 2")
        return self


class SimSiam(Method):
    """Two views, one network, a predictor on one side and a stop-gradient on the other."""

    recipe = Recipe(name="sgd", base_lr=0.05, momentum=0.9, weight_decay=1e-4)  # section 4.1, "Baseline settings"

    def __init__(self, settings: SimSiamSettings, encoder: Encoder) -> None:
        super().__init__(settings, encoder)
        self.projector = _projector(settings, encoder.feature_dim)
        self.predictor = _predictor(settings)

    def view_spec(self) -> ViewSpec:
        """Two views; four where the loss takes two pairs of each image (section 4.6)."""
        return ViewSpec((View(),) * (4 if self.settings.loss == "asymmetric_two_pairs" else 2))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Weight decay on all parameters, BN included; the predictor's rate does not decay (section 4.1 and table 1)."""
        return [
            *group("encoder", [self.encoder], lr_scale=self.settings.encoder_lr_scale),
            *group("projector", [self.projector]),
            *group("predictor", [self.predictor], schedule=self.settings.predictor_lr),
        ]

    def forward(self, batch: Batch) -> Output:
        """L = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2 (equation 4), in [-1, 1] with the cosine.

        Each view is a pass of its own, so that BN sees one view at a time, as in the paper.

        Raises:
            ValueError: another number of views than `view_spec()`.
        """
        if len(batch.views) != len(self.view_spec().views):
            raise ValueError(f"expected {len(self.view_spec().views)} views, got {len(batch.views)}")
        passed = [self.embed(view) for view in batch.views]
        if self.settings.loss == "symmetric":
            loss = self.pair_loss(passed[0], passed[1])
        else:
            # One direction only, of each pair of views.
            pairs = zip(passed[::2], passed[1::2], strict=True)
            loss = torch.stack([self.distance(first[2], second[1]) for first, second in pairs]).mean()
        return output(loss, passed)

    def embed(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, D), projection z (N, d) and prediction p (N, d) of one view."""
        features = self.encoder(view)
        z = self.projector(features)
        return features, z, self.predictor(z)

    def pair_loss(self, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
        """The symmetric loss of two views as `embed` gives them (equation 4)."""
        return (self.distance(first[2], second[1]) + self.distance(second[2], first[1])) / 2

    def distance(self, p: Tensor, z: Tensor) -> Tensor:
        """D(p, sg(z)) of the study: the stop-gradient and the similarity are its settings."""
        return SIMILARITIES[self.settings.similarity](p, z.detach() if self.settings.stop_gradient else z)


class Bias(nn.Module):
    """A predictor that adds a vector to z / |z| and does nothing else, which is enough to avoid collapse (2203.16262, section 4).

    To z itself, whose length nothing bounds without a BN on the output, the vector would stay too short to matter.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        """(N, d) to (N, d)."""
        return F.normalize(z, dim=1) + self.bias


def output(loss: Tensor, passed: list[tuple[Tensor, Tensor, Tensor]], **logs: Tensor) -> Output:
    """The output of a step from what `SimSiam.embed` gave for each view."""
    features, z, p = (torch.stack([one[part].detach() for one in passed]).float() for part in range(3))
    # A prediction of no length would make the cosine's gradient explode.
    return Output(
        loss, z, features, p, {"p_norm": p.norm(dim=-1).mean(), **{name: value.detach() for name, value in logs.items()}}
    )


def _projector(settings: SimSiamSettings, in_dim: int) -> nn.Sequential:
    """The projection MLP (section 3, "Baseline settings": BN on each layer, no ReLU on the output).

    The BN of the output has no affine parameters, which is as good (section 4.4) and keeps the spread of z from shrinking.
    """
    hidden = in_dim if settings.projector_hidden == "features" else settings.projector_hidden
    return mlp(
        [in_dim, *[hidden] * (settings.projector_layers - 1), settings.projector_dim],
        hidden_bn=settings.batch_norm != "none",
        output_bn="plain" if settings.batch_norm in ("default", "all") else "none",
    )


def _predictor(settings: SimSiamSettings) -> nn.Module:
    """The prediction MLP (section 3): a bottleneck; the output layer has no ReLU, and no BN, which makes training unstable (table 3)."""
    dim = settings.projector_dim
    if settings.predictor == "none":
        return nn.Identity()
    if settings.predictor == "bias_only":
        return Bias(dim)
    predictor = mlp(
        [dim, settings.predictor_hidden or max(1, dim // 4), dim],
        hidden_bn=settings.batch_norm != "none",
        output_bn="affine" if settings.batch_norm == "all" else "none",
    )
    return predictor.requires_grad_(settings.predictor == "learned")


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -<p / |p|, z / |z|>, mean over rows; scalar in [-1, 1] (equation 1).

    In float32 even under autocast: near -1 bfloat16 has steps of 0.004.
    """
    with torch.autocast(p.device.type, enabled=False):
        p, z = _precise(p, z)
        return -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(dim=1).mean()


def cross_entropy(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = -softmax(z) . log softmax(p) over channels, mean over rows; scalar >= 0 (section 4.5)."""
    with torch.autocast(p.device.type, enabled=False):
        p, z = _precise(p, z)
        return -(F.softmax(z, dim=1) * F.log_softmax(p, dim=1)).sum(dim=1).mean()


def _precise(*tensors: Tensor) -> list[Tensor]:
    return [x if x.dtype == torch.float64 else x.float() for x in tensors]


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": negative_cosine, "cross_entropy": cross_entropy}
