"""Backbones by name: torchvision's ResNets, and `timm/<name>` for every other network. Never downloads anything."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from medssl.errors import StudyError
from medssl.models.norms import group_norm_to_batch_norm
from medssl.strict import near_miss

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
STEMS = ("standard", "small")
# What torchvision's published ResNet weights expect, for pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A network without its classifier.

    Attributes:
        network: the module of the library, its classifier removed; its state dict has the library's names.
        feature_dim: D, the length of the pooled features.
        group_norm: `keep`, or `to_batch_norm` where the library's group normalisation was replaced.
        mean, std: three floats each, the normalisation that the network's published weights expect of pixels in [0, 1].
        min_input_size: side in px below which the last map would have no pixel.
        fixed_input_size: the only side in px that the network takes, or None.
        head_prefixes: prefixes of the classifier's names in published state dicts.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        stem: str,
        group_norm: str = "keep",
        feature_dim: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        min_input_size: int,
        fixed_input_size: int | None = None,
        head_prefixes: tuple[str, ...] = ("fc.", "classifier."),
    ) -> None:
        super().__init__()
        self.network = network
        self.name, self.stem, self.group_norm = name, stem, group_norm
        self.feature_dim = feature_dim
        self.mean, self.std = tuple(mean), tuple(std)
        self.min_input_size, self.fixed_input_size = min_input_size, fixed_input_size
        self.head_prefixes = head_prefixes

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features (N, D) of normalised float32 images (N, 3, H, W).

        Raises:
            StudyError: the network takes one input size only, and this is another.
        """
        self._check_size(x)
        return self.network(x)

    def feature_map(self, x: Tensor) -> Tensor:
        """The last spatial map (N, C, h, w) before pooling.

        Raises:
            StudyError: the network has no spatial map, such as a vision transformer.
        """
        self._check_size(x)
        if isinstance(self.network, torchvision.models.ResNet):
            return _resnet_map(self.network, x)
        features = self.network.forward_features(x)
        channels = self.network.num_features
        if features.ndim != 4 or channels not in (features.shape[1], features.shape[-1]):
            raise StudyError(f"encoder.backbone: {self.name} has no spatial feature map; choose a convolutional network")
        return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)

    def _check_size(self, x: Tensor) -> None:
        side = self.fixed_input_size
        if side is not None and x.shape[-2:] != (side, side):
            given = "x".join(str(n) for n in x.shape[-2:])
            raise StudyError(f"encoder.input_size: {self.name} takes {side} px only, not {given}; set it to {side}")


def build_backbone(name: str, stem: str = "standard", group_norm: str = "keep") -> Backbone:
    """A backbone with arbitrary weights: `medssl.models.weights.initialise` gives it those of a study.

    Args:
        name: one of TORCHVISION, or `timm/<name>`.
        stem: `standard`, or `small` for ResNets on small images: a 3x3 convolution of stride 1 and no max-pooling
            (2011.10566, appendix D).
        group_norm: `keep`, or `to_batch_norm`: see `medssl.models.norms`.

    Raises:
        StudyError: the name is unknown, or the network has no small stem or no group normalisation.
    """
    backbone = _library_network(name, stem)
    if group_norm == "to_batch_norm":
        if group_norm_to_batch_norm(backbone.network) == 0:
            raise StudyError(f"encoder.group_norm: is to_batch_norm, but {name} has no group normalisation; allowed: keep")
        backbone.group_norm = group_norm
    return backbone


def _library_network(name: str, stem: str) -> Backbone:
    if stem not in STEMS:
        raise StudyError(f"encoder.stem: is '{stem}'{near_miss(stem, list(STEMS))}; allowed: {', '.join(STEMS)}")
    if name in TORCHVISION:
        return _torchvision_resnet(name, stem)
    if not name.startswith("timm/"):
        raise StudyError(
            f"encoder.backbone: is '{name}'{near_miss(name, _all_names())}; allowed: {', '.join(TORCHVISION)}, timm/<name>"
        )
    if stem == "small":
        raise StudyError(f"encoder.stem: is small, which only torchvision's ResNets have, not {name}; allowed: standard")
    return _timm_network(name)


def _all_names() -> list[str]:
    import timm

    return [*TORCHVISION, *(f"timm/{model}" for model in timm.list_models())]


def _torchvision_resnet(name: str, stem: str) -> Backbone:
    network = torchvision.models.get_model(name, weights=None)
    feature_dim = network.fc.in_features
    network.fc = nn.Identity()
    if stem == "small":
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return Backbone(
        network,
        name=name,
        stem=stem,
        feature_dim=feature_dim,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        min_input_size=8 if stem == "small" else 32,
    )


def _timm_network(name: str) -> Backbone:
    import timm

    model = name.removeprefix("timm/")
    # is_model also refuses hf-hub: and local-dir: names, which would reach out of this machine.
    if not timm.is_model(model):
        raise StudyError(f"encoder.backbone: timm has no '{model}'{near_miss(name, _all_names())}; see timm.list_models()")
    try:
        network = timm.create_model(model, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise StudyError(f"encoder.backbone: timm has no '{model}' ({' '.join(str(error).split())})") from error
    config = network.pretrained_cfg
    side = config["input_size"][-1]
    classifier = config.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Backbone(
        network,
        name=name,
        stem="standard",
        feature_dim=getattr(network, "head_hidden_size", None) or network.num_features,
        mean=config["mean"],
        std=config["std"],
        min_input_size=config.get("min_input_size", (3, 32, 32))[-1],
        fixed_input_size=side if config.get("fixed_input_size") else None,
        head_prefixes=tuple(dict.fromkeys(("fc.", "classifier.", *(f"{head}." for head in heads)))),
    )


def _resnet_map(network: torchvision.models.ResNet, x: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))
