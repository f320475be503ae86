"""Frozen features leave the encoder as it was; recalibration changes its statistics and nothing else."""

from __future__ import annotations

import torch

from medssl.models.encoder import build_encoder
from medssl.models.features import extract_features, recalibrate_batch_norm


def images(count: int = 3):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(4, 1, 32, 32, generator=generator) for _ in range(count)]


def state(encoder):
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def test_the_encoder_is_bitwise_as_before():
    encoder = build_encoder("resnet18").train()
    before = state(encoder)
    features = extract_features(encoder, images())
    assert features.shape == (12, 512)
    assert encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in state(encoder).items())


def test_every_image_gives_a_row_whatever_the_batches():
    encoder = build_encoder("resnet18").eval()
    whole = torch.cat(images())
    alone = extract_features(encoder, whole.split(5))
    assert abs(alone - extract_features(encoder, images())).max() < 1e-4


def test_recalibrated_statistics_are_the_average_over_the_batches():
    encoder = build_encoder("resnet18").eval()
    before = state(encoder)
    recalibrate_batch_norm(encoder, images())
    after = state(encoder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("running_" in name or "num_batches" in name for name in changed)
    stem, inputs = encoder.backbone.network.conv1, [(batch - encoder.mean) / encoder.std for batch in images()]
    with torch.no_grad():
        expected = torch.stack([stem(batch).mean(dim=(0, 2, 3)) for batch in inputs]).mean(dim=0)
    assert torch.allclose(after["backbone.network.bn1.running_mean"], expected, atol=1e-5)
    assert encoder.backbone.network.bn1.momentum == 0.1
    assert not encoder.training
