from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from medssl.errors import StudyError
from medssl.models.backbones import build_backbone


@pytest.mark.parametrize(
    ("name", "dim", "size"),
    [
        ("resnet18", 512, 64),
        ("resnet50", 2048, 64),
        ("timm/tf_efficientnet_lite0", 1280, 64),
        ("timm/mobilenetv3_small_100", 1024, 64),
    ],
)
def test_pooled_features_have_the_announced_length(name, dim, size):
    backbone = build_backbone(name).eval()
    assert backbone.feature_dim == dim
    with torch.no_grad():
        assert backbone(torch.rand(2, 3, size, size)).shape == (2, dim)


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0"])
def test_pooled_features_are_the_mean_of_the_feature_map(name):
    backbone = build_backbone(name).eval()
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        features = backbone.feature_map(x)
        assert features.shape[-2:] == (3, 3)
        torch.testing.assert_close(features.mean((2, 3)), backbone(x))


def test_small_stem_keeps_the_resolution_and_standard_does_not():
    x = torch.rand(1, 3, 32, 32)
    assert build_backbone("resnet18", "small").eval().feature_map(x).shape[-2:] == (4, 4)
    assert build_backbone("resnet18").eval().feature_map(x).shape[-2:] == (1, 1)


@pytest.mark.parametrize(("size", "stem"), [(8, "small"), (32, "standard")])
def test_min_input_size_works(size, stem):
    backbone = build_backbone("resnet18", stem).eval()
    assert backbone.min_input_size == size
    assert backbone(torch.rand(1, 3, size, size)).isfinite().all()


def test_normalisation_is_that_of_the_published_weights():
    transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    backbone = build_backbone("resnet18")
    assert (list(backbone.mean), list(backbone.std)) == (transforms.mean, transforms.std)
    config = timm.get_pretrained_cfg("tf_efficientnet_lite0")
    backbone = build_backbone("timm/tf_efficientnet_lite0")
    assert (backbone.mean, backbone.std) == (config.mean, config.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet81", "resnet18"),
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"),
        ("timm/tf_efficientnet_lit0", "timm/tf_efficientnet_lite0"),
    ],
)
def test_unknown_names_are_refused_with_a_near_miss(name, hint):
    with pytest.raises(StudyError, match=hint) as caught:
        build_backbone(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["timm/hf-hub:timm/resnet18.a1_in1k", "timm/local-dir:/tmp/x", "timm/resnet18.no_such_tag", "timm/"]
)
def test_names_that_reach_out_of_this_machine_or_nowhere_are_refused(name):
    with pytest.raises(StudyError):
        build_backbone(name)


def test_small_stem_is_for_resnets():
    with pytest.raises(StudyError, match=r"encoder\.stem"):
        build_backbone("timm/tf_efficientnet_lite0", "small")
    with pytest.raises(StudyError, match="did you mean 'small'"):
        build_backbone("resnet18", "smal")


def test_a_transformer_says_what_it_cannot_do():
    backbone = build_backbone("timm/vit_tiny_patch16_224").eval()
    assert backbone.fixed_input_size == 224
    with pytest.raises(StudyError, match="224 px only"):
        backbone(torch.rand(1, 3, 64, 64))
    with pytest.raises(StudyError, match="no spatial feature map"):
        backbone.feature_map(torch.rand(1, 3, 224, 224))
