"""Blocks of a network from the input up, and what stays still when only the last ones are trained."""

from __future__ import annotations

import pytest
import torch

from medssl.errors import StudyError
from medssl.models.blocks import freeze_below, parameter_blocks
from medssl.models.encoder import build_encoder


@pytest.mark.parametrize(
    ("backbone", "count", "stem", "top"),
    [
        ("resnet18", 8, "conv1.weight", "layer4.1.bn2.bias"),
        ("timm/tf_efficientnet_lite0", 16, "conv_stem.weight", "bn2.bias"),
        ("timm/vit_tiny_patch16_224", 12, "cls_token", "norm.bias"),
    ],
)
def test_every_parameter_is_in_one_block_from_the_input_up(backbone, count, stem, top):
    encoder = build_encoder(backbone)
    parts = parameter_blocks(encoder)
    assert len(parts) == count + 1
    assert [name for part in parts for name in part] == [name for name, _ in encoder.named_parameters()]
    assert parts[0][0].endswith(stem)
    assert parts[-1][-1].endswith(top)


def test_frozen_blocks_are_those_below():
    encoder = build_encoder("resnet18")
    still = freeze_below(encoder, 2)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in encoder.named_parameters() if ".layer4." in name}
    norms = [layer for layer in encoder.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    top = [layer for layer in encoder.backbone.network.layer4.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert {id(layer) for layer in still if isinstance(layer, torch.nn.BatchNorm2d)} == {id(n) for n in norms} - {
        id(n) for n in top
    }


def test_more_blocks_than_there_are_are_refused():
    with pytest.raises(StudyError, match=r"finetune\.partial\.blocks: is 9, the network has 8 blocks"):
        freeze_below(build_encoder("resnet18"), 9)
