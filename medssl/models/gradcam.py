"""Grad-CAM: where in an image the evidence for an output lies (Selvaraju et al. 2017, 1610.02391, section 3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from medssl.models.encoder import Encoder


def grad_cam(encoder: Encoder, weight: Tensor, images: Tensor) -> Tensor:
    """Where the evidence for one output of a linear head lies, on the encoder's last spatial map.

    The output is `weight . features`; a bias moves no map. The channels' weights are the gradient of the output with respect to the
    map, averaged over its pixels (equation 1); the map is the positive part of the weighted sum (equation 2), enlarged bilinearly.

    Args:
        encoder: used in eval mode; nothing of it changes. Its own path from map to features is taken.
        weight: (D,) of the output, in the features' unit; see `folded` for a probe that standardises.
        images: (n, C, H, W) float32 in [0, 1].

    Returns:
        (n, H, W) float32 in [0, 1], each image's largest value 1; all 0 where nothing speaks for the output.

    Raises:
        StudyError: the network has no spatial map, such as a vision transformer.
        ValueError: `weight` has another length than the features, or the features do not come from the map.
    """
    if weight.shape != (encoder.feature_dim,):
        raise ValueError(f"expected a weight of shape ({encoder.feature_dim},), got {tuple(weight.shape)}")
    training = encoder.training
    encoder.eval()
    try:
        maps, features = _map_and_features(encoder, images)
        # A pixel of one image's map moves no other image's output, so one backward pass serves the whole batch.
        gradients = torch.autograd.grad((features.float() @ weight.to(features.device, torch.float32)).sum(), maps)[0]
    finally:
        encoder.train(training)
    channels = gradients.mean(dim=(2, 3), keepdim=True)
    evidence = F.relu((channels * maps).sum(dim=1, keepdim=True)).detach().float()
    large = F.interpolate(evidence, size=images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    most = large.amax(dim=(1, 2), keepdim=True)
    return torch.where(most > 0, large / most.clamp_min(torch.finfo(large.dtype).tiny), 0.0)


def folded(weight: np.ndarray, scale: np.ndarray) -> Tensor:
    """The weight of a probe on standardised features, ((f - mean) / scale) . weight, as one on the features themselves: (D,)."""
    return torch.from_numpy(np.asarray(weight, np.float64) / np.asarray(scale, np.float64)).float()


def _map_and_features(encoder: Encoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """The last spatial map as a leaf of the graph, and the features that the network's own pooling makes of it."""
    with torch.no_grad():
        maps, expected = encoder.feature_map(images), encoder(images[:1]).float()
    maps = maps.detach().requires_grad_(True)
    network = encoder.backbone.network
    with torch.enable_grad():
        for given in _layouts(network, maps):
            try:
                features = _pooled(network, given)
            except RuntimeError:
                continue  # this layout's channels do not fit the pooling
            # A pooling that is not the network's own would show a map of another model.
            if features.shape[1:] == expected.shape[1:] and torch.allclose(features[:1].float(), expected, rtol=1e-3, atol=1e-4):
                return maps, features
    raise ValueError(f"{encoder.backbone.name} does not make its features from its last spatial map alone")


def _layouts(network: nn.Module, maps: Tensor) -> list[Tensor]:
    """The map as the network's pooling may want it: channels first, or last as some transformers with windows keep them."""
    return [maps] if isinstance(network, torchvision.models.ResNet) else [maps, maps.permute(0, 2, 3, 1)]


def _pooled(network: nn.Module, maps: Tensor) -> Tensor:
    if isinstance(network, torchvision.models.ResNet):
        return torch.flatten(network.avgpool(maps), 1)
    return network.forward_head(maps)
