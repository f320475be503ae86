"""Weights files of others: read without running code, and their tensors' names made those of the network."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from medssl.errors import WeightsError

SUFFIXES = (".safetensors", ".pth", ".pt")
# What training scripts put before a network's own names, tried one after the other, each only if every name carries it.
PREFIXES = ("module.", "backbone.", "encoder.", "network.")
# Where training scripts keep the network in a checkpoint that holds more than it.
WRAPPERS = ("state_dict", "model")

# RadImageNet's PyTorch checkpoints (BMEII-AI/RadImageNet, pytorch_example.ipynb) are `backbone = nn.Sequential(*children)` of
# torchvision's network, so a tensor is called by its module's place among the children: `backbone.4.0.conv1.weight`.
# Places without tensors (ReLU, pooling) stand in no name. The last one is the classifier, which the published files left out.
RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4", "9": "fc"}
DENSENET_CHILDREN = {"0": "features", "1": "classifier"}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth or .pt file by name, without the prefixes and wrappers of training scripts.

    Raises:
        WeightsError: the file is not of these formats, needs code to be run, or holds something else than tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            value = safetensors.torch.load_file(path)
        elif path.suffix in SUFFIXES:
            value = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise WeightsError(f"{path}: is no weights file; allowed: {', '.join(SUFFIXES)}")
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: holds more than tensors, which could run code; save the state dict alone") from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__}); is it complete? fetch it again") from error
    for wrapper in WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(wrapper), dict):
            value = value[wrapper]
    if not isinstance(value, dict) or not value or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise WeightsError(f"{path}: is not a state dict, that is names with tensors; save model.state_dict()")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in value):
            value = {name.removeprefix(prefix): tensor for name, tensor in value.items()}
    return value


def in_network_names(state: dict[str, Tensor], network: Iterable[str]) -> tuple[dict[str, Tensor], bool]:
    """`state` under the names of a network where it is in RadImageNet's layout, else as it is; and whether it was.

    The layout is recognised by every name beginning with a place of the table that fits the network: no network of torchvision or
    timm has such names of its own.

    Args:
        state: as `read_state_dict` gives it, without the prefix `backbone.`.
        network: the names of the network's own tensors.
    """
    names = set(network)
    table = RESNET_CHILDREN if "layer1.0.conv1.weight" in names else DENSENET_CHILDREN
    parts = {name: name.partition(".") for name in state}
    if not all(first in table and rest for first, _, rest in parts.values()):
        return state, False
    return {f"{table[first]}.{rest}": state[name] for name, (first, _, rest) in parts.items()}, True


def weights_at(place: Path, card: str) -> Path:
    """What an arm can start from at `place`: a weights file, or a folder with an encoder's card or with one weights file.

    Args:
        place: a file or folder, as it came from a store.
        card: the name of an encoder's card. It may also stand in a folder `encoder` below.

    Returns:
        The folder that holds the card, or the weights file.

    Raises:
        WeightsError: there is nothing of the kind, or more than one weights file.
    """
    place = Path(place)
    if place.is_file():
        return place
    for folder in (place, place / "encoder"):
        if (folder / card).is_file():
            return folder
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.suffix in SUFFIXES)
    if len(files) == 1:
        return files[0]
    found = f"{len(files)} weights files ({', '.join(path.name for path in files[:3])})" if files else "no weights file"
    raise WeightsError(f"{place.name}: holds {found} and no {card}; name the one that is meant, by its whole path")
