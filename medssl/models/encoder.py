"""The encoder owns its input: what goes in is pixels in [0, 1], grey or colour; normalisation is saved with the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssl.models.backbones import Backbone, build_backbone


class Encoder(nn.Module):
    """A backbone with its normalisation.

    A grey image is repeated over the three colour channels and then normalised channel by channel, so its features are
    those of the unmodified colour network. (Summing the first convolution over its input channels instead would not
    be exact: with unequal means, zero padding stands for three different greys.)

    Attributes:
        backbone: the network.
        mean, std: buffers (1, 3, 1, 1), in units of pixels in [0, 1].
    """

    def __init__(self, backbone: Backbone, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        """`mean`, `std`: three floats each; None: what the backbone's published weights expect."""
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(list(mean or backbone.mean), dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std or backbone.std), dtype=torch.float32).view(1, 3, 1, 1))

    @property
    def feature_dim(self) -> int:
        """D, the length of a feature vector."""
        return self.backbone.feature_dim

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (N, D) of images (N, C, H, W), float32 in [0, 1], C = 1 (grey) or 3 (colour)."""
        return self.backbone(self._normalise(x))

    def feature_map(self, x: Tensor) -> Tensor:
        """The last spatial map (N, channels, h, w) of images as in `forward`."""
        return self.backbone.feature_map(self._normalise(x))

    def _normalise(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"expected images (N, 1 or 3, H, W), got a tensor of shape {tuple(x.shape)}")
        # Broadcasting repeats a grey channel without a copy of its own.
        return (x - self.mean) / self.std


def build_encoder(
    backbone: str,
    stem: str = "standard",
    group_norm: str = "keep",
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Encoder:
    """An encoder with arbitrary weights; see `build_backbone` and `medssl.models.weights.initialise`.

    Raises:
        StudyError: see `build_backbone`.
    """
    return Encoder(build_backbone(backbone, stem, group_norm), mean=mean, std=std)
